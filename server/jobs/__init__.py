"""Jobs: requests that outlive their connections and the server, kept in a database and run behind all others."""
