"""The families that come with metarl, registered through the entry points that anybody's package can use."""
