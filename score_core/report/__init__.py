"""The report on a run: one self-contained HTML page and a model card, made from result files alone.

`inputs` reads and checks the files, `comparison` does the statistics that need single answers,
`plots` draws, `page` and `card` write. Every number shown comes from those files, and equal files
give equal bytes.
"""
