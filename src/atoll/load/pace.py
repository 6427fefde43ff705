"""Who is due when: open or closed loop. No sleeping in here."""
