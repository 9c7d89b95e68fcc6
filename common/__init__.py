"""The library that the scripts share; docs/ARCHITECTURE.md says which module does what and who may import whom."""
