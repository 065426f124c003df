"""What `longshort importance-report` shows of weighed chains.

`chains` reads them, `intervals`, `positions` and `statistics` count (no matplotlib there), `figures` with
`drawing` and `marks` draws, `reader` prepares chains to be read thought by thought, `page` makes the HTML,
`run` is the command.
"""
