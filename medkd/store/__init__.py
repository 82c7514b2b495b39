"""Durable things under a run prefix: files, journals, budget, tables and manifests. The only importer of fsspec and pyarrow."""
