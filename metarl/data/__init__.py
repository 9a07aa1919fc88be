"""Experience that is kept: replay buffers and recorded episodes."""
