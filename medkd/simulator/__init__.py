"""An honest stand-in teacher over HTTP, with a clinic of its own. No other room knows of it."""
