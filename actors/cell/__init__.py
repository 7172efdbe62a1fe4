"""The composition root of one process: a whole gateway on one event loop. It builds the edge, the chain under the gateway
supervisor and what stands beside it, and joins them to the node. Knows everybody here but `node`, which starts it by its dotted
path."""
