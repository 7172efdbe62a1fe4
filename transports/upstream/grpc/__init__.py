"""A gRPC server that tells its services by reflection, as tools: unary methods, and those that stream their answers."""
