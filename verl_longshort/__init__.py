"""Long⊗Short for verl: two policies that solve problems together and spend fewer tokens.

Importing this package is light on purpose: verl loads `verl_longshort.verl_plugin.plugin` in every process, and the
protocol, environment, data and evaluation code is used without verl.
"""

__version__ = "0.1.0"
