"""Does it hurt, and is it viable, as Stafford Beer's Viable System Model asks: vital signs read from the metrics of all
processes, sensations (how bad each is, with habituation), the algedonic channel that tells of pain and pleasure, and the model's
five systems for the dashboard. One cell of a node judges. Knows no other role: imports `messages` and `runtime`; whether servers
answer is `health`'s."""
