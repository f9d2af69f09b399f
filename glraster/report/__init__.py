"""Pages and pictures that show a map or a training: records in, text and pictures out, no files."""
