"""Teachers over HTTP: protocols, verdicts, pacing and prompts. The only importer of requests."""
