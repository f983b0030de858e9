"""Names that nothing in `src` calls and that are used all the same, for vulture. Each with its reason."""
