"""What is kept in SQL: tables, migrations, and one repository per concern. Only `control` opens it."""
