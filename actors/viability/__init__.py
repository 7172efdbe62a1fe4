"""Does it hurt, and is it viable: vital signs read from the metrics, sensations with habituation, the algedonic channel, and the
five systems of Stafford Beer's model, reported to the dashboard. Reads metrics and events; knows no other role."""
