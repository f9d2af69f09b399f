"""The command line of glraster: one module for every verb."""
