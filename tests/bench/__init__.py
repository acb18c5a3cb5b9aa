"""The benchmark behind ``make bench``: Bastide beside moto_server and ministack, in one run. See README.md here."""
