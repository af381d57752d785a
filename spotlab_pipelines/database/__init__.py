"""Tables, connections and migrations of Postgres, and the connection to Redis: what every room shares."""
