"""How good a model is, where it goes wrong, and what an upgrade changes. Imports neither Ray nor click."""
