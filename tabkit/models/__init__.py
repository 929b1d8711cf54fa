"""The models: one file each, its file name is its name. Strangers to each other."""
