"""What `longshort importance-report` shows of weighed chains.

`chains` reads them, `intervals` and `statistics` count (no matplotlib there), `drawing` and `figures` draw, `page`
makes the HTML and is the command.
"""
