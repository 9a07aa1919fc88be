"""The families that come with metarl, registered through entry points as any package can do."""
