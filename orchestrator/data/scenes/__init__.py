"""The embedded scenes: what is in one (`scenes`), its patterns (`textures`), its pixels (`raycast`, `render`)."""
