"""`python -m vae.measure`: the tables of docs/measures.md, made from the catalogue and the record."""

from vae.measure import catalogue

for group in catalogue.GROUPS:
    print(f"<!-- {group.__name__} -->\n{catalogue.table(group)}<!-- end -->\n")
