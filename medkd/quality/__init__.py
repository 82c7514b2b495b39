"""Pure functions over records and text: validation, grounding, duplicates, scores and the report page."""
