"""A stored model as a folder that others open without this project."""
