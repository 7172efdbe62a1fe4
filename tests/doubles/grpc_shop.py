"""A gRPC server with reflection, of a service that is described here instead of in a .proto file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import attrs
import grpc
from google.protobuf import timestamp_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, MethodDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection

SERVICE = "shop.v1.Catalog"
_FIELD = FieldDescriptorProto


def _field(name: str, number: int, kind: int, *, label: int = _FIELD.LABEL_OPTIONAL, type_name: str = "") -> FieldDescriptorProto:
    return FieldDescriptorProto(name=name, number=number, type=kind, label=label, type_name=type_name or None)


def shop_file() -> FileDescriptorProto:
    """What protoc would make of the service."""
    file = FileDescriptorProto(name="shop/v1/catalog.proto", package="shop.v1", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    color = file.enum_type.add(name="Color")
    for number, name in enumerate(("COLOR_UNSPECIFIED", "RED", "BLUE")):
        color.value.add(name=name, number=number)
    query = file.message_type.add(name="Query")
    query.nested_type.append(
        DescriptorProto(
            name="LabelsEntry",
            field=[_field("key", 1, _FIELD.TYPE_STRING), _field("value", 2, _FIELD.TYPE_STRING)],
            options={"map_entry": True},
        )
    )
    query.field.extend(
        [
            _field("name_part", 1, _FIELD.TYPE_STRING),
            _field("limit", 2, _FIELD.TYPE_INT64),
            _field("color", 3, _FIELD.TYPE_ENUM, type_name=".shop.v1.Color"),
            _field("labels", 4, _FIELD.TYPE_MESSAGE, label=_FIELD.LABEL_REPEATED, type_name=".shop.v1.Query.LabelsEntry"),
            _field("tags", 5, _FIELD.TYPE_STRING, label=_FIELD.LABEL_REPEATED),
            _field("since", 6, _FIELD.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp"),
            _field("either", 7, _FIELD.TYPE_MESSAGE, type_name=".shop.v1.Query"),
            _field("seal", 8, _FIELD.TYPE_BYTES),
        ]
    )
    item = file.message_type.add(name="Item")
    item.field.extend([_field("name", 1, _FIELD.TYPE_STRING), _field("count", 2, _FIELD.TYPE_INT32)])
    service = file.service.add(name="Catalog")
    for name, takes, gives, streams_in, streams_out in (
        ("Find", "Query", "Item", False, False),
        ("Watch", "Query", "Item", False, True),
        ("Upload", "Item", "Item", True, False),
    ):
        service.method.append(
            MethodDescriptorProto(
                name=name,
                input_type=f".shop.v1.{takes}",
                output_type=f".shop.v1.{gives}",
                client_streaming=streams_in,
                server_streaming=streams_out,
            )
        )
    return file


def shop_pool() -> DescriptorPool:
    pool = DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(shop_file())
    return pool


@attrs.define
class GrpcShop:
    """address: host:port. metadata: of each call."""

    address: str = ""
    metadata: list[dict[str, str]] = attrs.field(factory=list)


@contextmanager
def grpc_shop(
    *,
    has_reflection: bool = True,
    services: Sequence[str] = (SERVICE,),
    credentials: grpc.ServerCredentials | None = None,
    interceptors: Sequence[grpc.ServerInterceptor] = (),
) -> Iterator[GrpcShop]:
    """Finds what it is asked for; "missing" is not there, "slow" takes a minute, and "many" streams without end."""
    pool, shop = shop_pool(), GrpcShop()
    query, item = (GetMessageClass(pool.FindMessageTypeByName(f"shop.v1.{name}")) for name in ("Query", "Item"))

    def find(request: Any, context: grpc.ServicerContext) -> Any:
        shop.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
        if request.name_part == "missing":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such item")
        if request.name_part == "slow":
            time.sleep(5)
        return item(name=f"{request.name_part}/{'+'.join(request.tags)}", count=request.limit)

    def watch(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        number = 0
        while context.is_active() and (request.name_part == "many" or number < request.limit):
            number += 1
            yield item(name=request.name_part, count=number)

    handlers = {
        "Find": grpc.unary_unary_rpc_method_handler(find, query.FromString, item.SerializeToString),
        "Watch": grpc.unary_stream_rpc_method_handler(watch, query.FromString, item.SerializeToString),
    }
    server = grpc.server(ThreadPoolExecutor(8), interceptors=interceptors)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    if has_reflection:
        reflection.enable_server_reflection((*services, reflection.SERVICE_NAME), server, pool=pool)
    at = "127.0.0.1:0"
    port = server.add_insecure_port(at) if credentials is None else server.add_secure_port(at, credentials)
    shop.address = f"127.0.0.1:{port}"
    server.start()
    try:
        yield shop
    finally:
        server.stop(0.1).wait(5)
