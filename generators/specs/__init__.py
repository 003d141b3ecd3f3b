"""Reading `specs/`: YAML with places, the schema of every kind of file, rules across files, and one `Project` out of it all."""
