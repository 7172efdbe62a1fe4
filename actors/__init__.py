"""The actor system of a gateway. The six roles edge, events, pool, routing, health and viability know each other by message only;
`cell` builds them and is the one place that knows them all. The other folders are what roles are made of: `messages` that they
say, the `runtime` that they run on, `supervision`, and plain code that has no actor (`conversations`, `forwarding`, `storage`);
`node` has the processes. Decisions are pure modules, actors the shells around them. Imports transports and config, never
scripts."""
