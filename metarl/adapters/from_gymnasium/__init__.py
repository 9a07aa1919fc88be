"""What Gymnasium environments share on their way to a family."""
