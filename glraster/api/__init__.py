"""The Python API: what `import glraster` offers, loaded when first used."""
