"""The configurations that come with metarl: one file is one run, found by its short name."""
