"""Meta-reinforcement learning on current PyTorch."""
