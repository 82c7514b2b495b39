"""The stages of a run, one file each, readable top to bottom; and the rule of their sequence."""
