"""`python -m vae.output`: the tables of docs/measures.md, made from the catalogue of measures and the final record."""

from vae.measure import catalogue
from vae.output import record

for group in catalogue.GROUPS:
    print(f"<!-- {group.__name__} -->\n{catalogue.table(group)}<!-- end -->\n")
print(f"<!-- RunRecord -->\n{record.table()}<!-- end -->")
