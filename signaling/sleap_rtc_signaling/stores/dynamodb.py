"""Records in one DynamoDB table, for several instances and for nobody's backups.

Every call runs on one of a few threads of the table's own and has a bounded time, so
the event loop never waits. Conditions decide who comes first. A throttled call is tried
again for a while; a write whose answer was lost is not, since it may have been done.
DynamoDB removes what has ended when it likes: the end is always checked here.
"""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from sleap_rtc_plugin.protocol.errors import StorageFailed
from sleap_rtc_signaling.limits import (
    DYNAMODB_BACKOFF_FIRST_S,
    DYNAMODB_BACKOFF_MAX_S,
    DYNAMODB_CONNECT_TIMEOUT_S,
    DYNAMODB_KEPT_S,
    DYNAMODB_READ_TIMEOUT_S,
    DYNAMODB_RETRY_S,
    MAX_STORE_CALLS_AT_ONCE,
)
from sleap_rtc_signaling.stores.records import (
    Counters,
    Record,
    RecordKey,
    first_version,
)

if TYPE_CHECKING:
    from sleap_rtc_signaling.config import StoreConfig

__all__ = ["DynamoRecords", "create_table"]

Item = Mapping[str, Any]

_INDEX: Final = "by_index"
_RECORD: Final = "r="
_COUNTERS: Final = "c="
# Names of attributes are written in full only here; each is an attribute of the table.
_LIVES: Final = "(attribute_not_exists(ends) OR ends > :now)"
_THROTTLED: Final = frozenset(
    {
        "ThrottlingException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "TransactionInProgressException",
    }
)
_NOT_MET: Final = "ConditionalCheckFailedException"
_AMOUNT: Final = "n_"


def create_table(client: Any, table: str) -> None:
    """Make the table and wait until it is there: for tests and small labs.

    Args:
        client: a DynamoDB client of boto3.
        table: its name.
    """
    client.create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk", "ix")
        ],
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": _INDEX,
                "KeySchema": [{"AttributeName": "ix", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
    )
    client.get_waiter("table_exists").wait(
        TableName=table, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    client.update_time_to_live(
        TableName=table,
        TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"},
    )


class DynamoRecords:
    """`Records` in a table that is there already, opened with `DynamoRecords.open`.

    Args:
        client: a DynamoDB client of boto3, which does not try again by itself.
        table: the table's name.
    """

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table
        self._is_closed = False
        self._executor = ThreadPoolExecutor(
            MAX_STORE_CALLS_AT_ONCE, thread_name_prefix="signaling-dynamodb"
        )

    @classmethod
    async def open(cls, config: "StoreConfig") -> "DynamoRecords":
        """Open the table; credentials come from where AWS's programs look for them.

        Raises:
            StorageFailed: boto3 is missing, or the table cannot be read.
        """
        client = await asyncio.to_thread(_client, config)
        records = cls(client, config.table)
        try:
            await records.check()
        except BaseException:
            await records.close()
            raise
        return records

    async def get(self, key: RecordKey, now: float) -> Record | None:
        """Return a record that has not ended."""
        answer = await self._read("get_item", Key=_at(key), ConsistentRead=True)
        record = _record(answer["Item"]) if "Item" in answer else None
        return record if record is not None and _lives(record, now) else None

    async def create(self, record: Record, now: float) -> bool:
        """Store a new record; False where a living one has its key."""
        return await self._write_if(
            "put_item",
            Item=_item(record, first_version()),
            ConditionExpression="attribute_not_exists(pk)"
            " OR (attribute_exists(ends) AND ends <= :now)",
            ExpressionAttributeValues={":now": _number(now)},
        )

    async def replace(self, record: Record, now: float) -> bool:
        """Store a record in place of the one with its version."""
        return await self._write_if(
            "put_item",
            Item=_item(record, record.version + 1),
            ConditionExpression=f"version = :version AND {_LIVES}",
            ExpressionAttributeValues={
                ":version": _number(record.version),
                ":now": _number(now),
            },
        )

    async def delete(self, key: RecordKey, version: int | None = None) -> bool:
        """Delete a record; False where there is none, or not of this version."""
        if version is None:
            return await self._write_if(
                "delete_item",
                Key=_at(key),
                ConditionExpression="attribute_exists(pk)",
            )
        return await self._write_if(
            "delete_item",
            Key=_at(key),
            ConditionExpression="version = :version",
            ExpressionAttributeValues={":version": _number(version)},
        )

    async def partition(
        self, kind: str, partition: str, now: float, limit: int
    ) -> list[Record]:
        """Return the first records of a partition, in the order of their names."""
        pages = self._pages(
            "query",
            KeyConditionExpression="pk = :pk AND begins_with(sk, :sk)",
            FilterExpression=_LIVES,
            ExpressionAttributeValues={
                ":pk": {"S": f"{kind}#{partition}"},
                ":sk": {"S": _RECORD},
                ":now": _number(now),
            },
            ConsistentRead=True,
        )
        return await _first(pages, limit)

    async def indexed(
        self, kind: str, index: str, now: float, limit: int
    ) -> list[Record]:
        """Return records by their index."""
        if not index:
            return []
        pages = self._pages(
            "query",
            IndexName=_INDEX,
            KeyConditionExpression="ix = :ix",
            FilterExpression=_LIVES,
            ExpressionAttributeValues={
                ":ix": {"S": f"{kind}#{index}"},
                ":now": _number(now),
            },
        )
        return await _first(pages, limit)

    async def everything(self, kind: str, now: float) -> list[Record]:
        """Return all records of a kind."""
        pages = self._pages(
            "scan",
            FilterExpression=f"kind = :kind AND begins_with(sk, :sk) AND {_LIVES}",
            ExpressionAttributeValues={
                ":kind": {"S": kind},
                ":sk": {"S": _RECORD},
                ":now": _number(now),
            },
            ConsistentRead=True,
        )
        return [_record(item) async for item in pages]

    async def add(
        self, key: RecordKey, amounts: Mapping[str, int], expires_at: float | None
    ) -> Mapping[str, int]:
        """Add to the counters of a record."""
        names = {f"#{n}": f"{_AMOUNT}{name}" for n, name in enumerate(amounts)}
        values = {f":{n}": _number(amount) for n, amount in enumerate(amounts.values())}
        sets = "SET kind = :kind"
        values[":kind"] = {"S": key.kind}
        if expires_at is not None:
            sets += ", ends = :ends, #ttl = :ttl"
            names["#ttl"] = "ttl"
            values[":ends"], values[":ttl"] = _number(expires_at), _ttl(expires_at)
        if amounts:
            sets += " ADD " + ", ".join(f"#{n} :{n}" for n in range(len(amounts)))
        options: dict[str, Any] = {"ExpressionAttributeNames": names} if names else {}
        answer = await self._call(
            "update_item",
            Key=_at(key, _COUNTERS),
            UpdateExpression=sets,
            ExpressionAttributeValues=values,
            ReturnValues="ALL_NEW",
            **options,
        )
        return _amounts(answer["Attributes"])

    async def counters(self, key: RecordKey) -> Mapping[str, int]:
        """Return the counters that `add` moved."""
        answer = await self._read(
            "get_item", Key=_at(key, _COUNTERS), ConsistentRead=True
        )
        return _amounts(answer.get("Item", {}))

    async def kinds(self) -> list[str]:
        """Return which kinds of records there are."""
        pages = self._pages(
            "scan",
            FilterExpression="begins_with(sk, :sk)",
            ProjectionExpression="kind",
            ExpressionAttributeValues={":sk": {"S": _RECORD}},
        )
        return sorted({item["kind"]["S"] async for item in pages})

    async def all_counters(self) -> list[Counters]:
        """Return all counters."""
        pages = self._pages(
            "scan",
            FilterExpression="begins_with(sk, :sk)",
            ExpressionAttributeValues={":sk": {"S": _COUNTERS}},
            ConsistentRead=True,
        )
        return [
            Counters(_key(item), _amounts(item), _ends(item)) async for item in pages
        ]

    async def purge(self, now: float) -> None:
        """Do nothing: DynamoDB removes what has ended, by the attribute `ttl`."""

    async def check(self) -> None:
        """Raise `StorageFailed` if the table cannot be read."""
        await self._read("get_item", Key=_at(RecordKey("check", "")))

    async def close(self) -> None:
        """End the threads and the connections."""
        if self._is_closed:
            return
        self._is_closed = True
        # Each call under way has a time of its own, so this ends.
        await asyncio.to_thread(self._executor.shutdown)
        self._client.close()

    # -- calls ----------------------------------------------------------------------

    async def _pages(self, method: str, **options: Any) -> AsyncIterator[Item]:
        start: Any = None
        while True:
            more = {} if start is None else {"ExclusiveStartKey": start}
            answer = await self._read(method, **options, **more)
            for item in answer.get("Items", ()):
                yield item
            start = answer.get("LastEvaluatedKey")
            if not start:
                return

    async def _write_if(self, method: str, **options: Any) -> bool:
        """Write on a condition; False where it was not met."""
        return await self._call(method, **options) is not None

    async def _read(self, method: str, **options: Any) -> Any:
        return await self._call(method, is_read=True, **options)

    async def _call(self, method: str, *, is_read: bool = False, **options: Any) -> Any:
        """Call DynamoDB; None where a condition was not met."""
        from botocore.exceptions import BotoCoreError, ClientError

        if self._is_closed:
            raise self._failed("it is closed")
        loop = asyncio.get_running_loop()
        call: Callable[..., Any] = getattr(self._client, method)
        give_up_at = loop.time() + DYNAMODB_RETRY_S
        delay_s = DYNAMODB_BACKOFF_FIRST_S
        while True:
            try:
                return await loop.run_in_executor(
                    self._executor, lambda: call(TableName=self._table, **options)
                )
            except ClientError as error:
                code = str(error.response.get("Error", {}).get("Code", ""))
                if code == _NOT_MET:
                    return None
                may_retry = code in _THROTTLED or (
                    is_read and code == "InternalServerError"
                )
                fault = self._failed(code or "it answered with an error")
            except BotoCoreError as error:
                # Its words may name an address, but never a credential.
                may_retry = is_read
                fault = self._failed(type(error).__name__)
            if not may_retry or loop.time() + delay_s > give_up_at:
                raise fault
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 -- jitter
            delay_s = min(2 * delay_s, DYNAMODB_BACKOFF_MAX_S)

    def _failed(self, reason: str) -> StorageFailed:
        return StorageFailed(place=f"the DynamoDB table {self._table}", reason=reason)


def _client(config: "StoreConfig") -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        place = f"the DynamoDB table {config.table}"
        reason = "boto3 is missing: install sleap-rtc-plugin[aws]"
        raise StorageFailed(place=place, reason=reason) from None
    try:
        # A session of its own: boto3's default one is not for several threads.
        return boto3.session.Session().client(
            "dynamodb",
            region_name=config.region or None,
            endpoint_url=config.endpoint or None,
            config=Config(
                connect_timeout=DYNAMODB_CONNECT_TIMEOUT_S,
                read_timeout=DYNAMODB_READ_TIMEOUT_S,
                retries={"total_max_attempts": 1, "mode": "standard"},
                max_pool_connections=MAX_STORE_CALLS_AT_ONCE,
            ),
        )
    except (BotoCoreError, ValueError) as error:
        place = f"the DynamoDB table {config.table}"
        raise StorageFailed(place=place, reason=str(error)) from None


async def _first(pages: AsyncIterator[Item], limit: int) -> list[Record]:
    found: list[Record] = []
    async for item in pages:
        if len(found) >= limit:
            break
        found.append(_record(item))
    return found[:limit]


# -- records as items -----------------------------------------------------------------


def _at(key: RecordKey, prefix: str = _RECORD) -> dict[str, Any]:
    return {
        "pk": {"S": f"{key.kind}#{key.partition}"},
        "sk": {"S": f"{prefix}{key.name}"},
    }


def _item(record: Record, version: int) -> dict[str, Any]:
    item = {
        **_at(record.key),
        "kind": {"S": record.key.kind},
        "value": {"B": record.value},
        "version": _number(version),
    }
    if record.index:
        item["ix"] = {"S": f"{record.key.kind}#{record.index}"}
    if record.expires_at is not None:
        item["ends"] = _number(record.expires_at)
        item["ttl"] = _ttl(record.expires_at)
    return item


def _record(item: Item) -> Record:
    key = _key(item)
    index = item["ix"]["S"].removeprefix(f"{key.kind}#") if "ix" in item else ""
    return Record(
        key=key,
        value=bytes(item["value"]["B"]),
        expires_at=_ends(item),
        index=index,
        version=int(item["version"]["N"]),
    )


def _key(item: Item) -> RecordKey:
    kind = item["kind"]["S"]
    partition = item["pk"]["S"].removeprefix(f"{kind}#")
    return RecordKey(kind, partition, item["sk"]["S"][len(_RECORD) :])


def _ends(item: Item) -> float | None:
    return float(item["ends"]["N"]) if "ends" in item else None


def _amounts(item: Item) -> dict[str, int]:
    return {
        name.removeprefix(_AMOUNT): int(value["N"])
        for name, value in item.items()
        if name.startswith(_AMOUNT)
    }


def _number(value: float) -> dict[str, str]:
    return {"N": repr(value)}


def _ttl(expires_at: float) -> dict[str, str]:
    """Return when DynamoDB may remove it: later, since time may be given back."""
    return _number(math.ceil(expires_at + DYNAMODB_KEPT_S))


def _lives(record: Record, now: float) -> bool:
    return record.expires_at is None or record.expires_at > now
