"""A local AWS for tests and the demo: a moto server plus what moto lacks, serving a market recording.

Here lives everything that is not real: production code knows nothing of it and only ever sees AWS_ENDPOINT_URL. What
is added to moto, and what is left out, is listed in README.md.
"""
