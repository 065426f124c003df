"""Reading answers: from characters over tokens to forms, and whether two of them are equal.

`characters`, `scanner`, `arranging` make tokens; `numerals`, `trimming`, `parsing` make forms of them; `equality`
compares. `boxes`, `choices` and `prose` find the answer in a text.
"""
