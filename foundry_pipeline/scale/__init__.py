"""Work on other machines: what a piece of it asks for, the cluster it is sent to, and what runs on a node. No Dagster here."""
