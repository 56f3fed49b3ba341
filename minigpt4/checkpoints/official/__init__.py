"""The published systems: their files in and out, their sizes, and their behaviour where ours differs.

importing   files in: `import_official`
exporting   what was trained, out again: `export_official`
sizes       what files of which sizes go together
full_size   the released systems by name, as configurations
published   generation as the published code does it, for comparison
"""
