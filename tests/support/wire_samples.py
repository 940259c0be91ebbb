"""One sample, or more, of everything that crosses a wire; nothing in it is random."""

from typing import Final

from msgspec import Raw
from support import model_samples

from sleap_rtc_plugin.protocol import link_test_messages as tests
from sleap_rtc_plugin.protocol import messages as m
from sleap_rtc_plugin.protocol import mount_messages as mounts
from sleap_rtc_plugin.protocol import queue_messages as queue
from sleap_rtc_plugin.protocol import signaling_messages as s
from sleap_rtc_plugin.protocol.errors import (
    DiskFull,
    JobUnknown,
    RelayRefused,
    SharedStorageUnusable,
    WorkerBusy,
)

JOB: Final = "job-00112233445566778899"
TRANSFER: Final = "transfer-99887766554433221100"
DIGEST: Final = "ab" * 32
SPEC: Final = m.JobSpec(
    name="flies",
    owner="ann@laptop",
    steps=[
        m.TrainStep(
            config="centroid.yaml",
            labels="fly.pkg.slp",
            run_name="flies.centroid",
            head="centroid",
        ),
        m.TrainStep(
            config="instance.yaml",
            labels="fly.pkg.slp",
            run_name="flies.instance",
            head="centered_instance",
        ),
        m.PredictStep(
            data="fly.pkg.slp",
            models=["models/flies.centroid", "models/flies.instance"],
            output="fly.predictions.slp",
            options={"frames": "0-99", "no-empty-frames": ""},
        ),
    ],
)
FULL: Final = DiskFull(place="/data", needed="2.0 MiB", free="1.0 MiB")

SUMMARY: Final = m.JobSummary(
    job_id=JOB,
    name="flies",
    owner="ann@laptop",
    state="running",
    steps=3,
    step=0,
    epoch=3,
    created_at=1700000000.0,
    started_at=1700000000.5,
    last_seq=4,
)
FAILED: Final = m.JobSummary(
    job_id="job-ffeeddccbbaa99887766",
    name="mice",
    state="failed",
    steps=1,
    step=0,
    done=10,
    total=40,
    created_at=1690000000.0,
    started_at=1690000001.0,
    ended_at=1690000009.0,
    last_seq=9,
    error=FULL.to_wire(),
)

WAITING: Final = m.JobSummary(
    job_id="job-11223344556677889900",
    name="worms",
    state="queued",
    steps=1,
    created_at=1700000010.0,
    last_seq=3,
    position=2,
    starts_in_s=95.5,
)
REMOVED: Final = m.JobSummary(
    job_id="job-22334455667788990011",
    name="ants",
    state="succeeded",
    steps=1,
    step=0,
    created_at=1690000000.0,
    started_at=1690000001.0,
    ended_at=1690000009.0,
    last_seq=9,
    restarts=2,
    expires_at=1692592009.0,
    results_removed=True,
)

PLACE: Final = mounts.MountPlace(mount="lab", path="2026/fly.mp4")

CONTROL: Final[list[m.ControlMessage]] = [
    m.Hello(role="client", protocol_min=1, protocol_max=1, nonce="01" * 32),
    m.Hello(
        role="worker",
        protocol_min=1,
        protocol_max=3,
        nonce="02" * 32,
        software="sleap-rtc-plugin 1.0",
        engine="fast",
        features=["resume"],
    ),
    m.Auth(mac=DIGEST),
    m.KeepAlive(),
    m.KeepAlive(echo=True),
    m.JobSubmit(
        command_id="c-1",
        job_id=JOB,
        spec=SPEC,
        package_digest=DIGEST,
        package_bytes=1_000_000,
    ),
    m.JobAccepted(command_id="c-1", job_id=JOB, state="staging", last_seq=2),
    m.JobRejected(
        command_id="c-1",
        job_id=JOB,
        error=WorkerBusy(worker="gpu-1", reason="its queue is full").to_wire(),
    ),
    m.JobAttach(command_id="c-2", job_id=JOB, since=41),
    m.ZmqCtrl(command_id="c-3", job_id=JOB, command="stop"),
    m.ZmqCtrl(command_id="c-4", job_id=JOB, command="stop", scope="job"),
    m.JobCancel(command_id="c-5", job_id=JOB),
    m.JobFetch(command_id="c-6", job_id=JOB),
    m.Acknowledged(command_id="c-2", last_seq=44),
    m.CommandFailed(command_id="c-2", error=JobUnknown(job_id=JOB).to_wire()),
    m.FileMeta(
        transfer_id=TRANSFER,
        stream=1,
        job_id=JOB,
        purpose="package",
        manifest_bytes=321,
        manifest_digest=DIGEST,
        total_bytes=2_500,
        file_count=2,
    ),
    m.FileNeed(transfer_id=TRANSFER, manifest=True),
    m.FileNeed(transfer_id=TRANSFER, chunks=[(0, 0), (2, 5)], reused_bytes=1_000),
    m.FileDone(transfer_id=TRANSFER),
    m.FileDone(transfer_id=TRANSFER, error=FULL.to_wire()),
    m.JobEvent(job_id=JOB, seq=1, at=1700000000.5, state="starting", step=0),
    m.JobEvent(
        job_id=JOB, seq=9, at=1700000009.0, state="failed", error=FULL.to_wire()
    ),
    m.ProgressReport(
        job_id=JOB,
        seq=2,
        at=1700000001.0,
        step=0,
        kind="epoch_end",
        epoch=3,
        batch=19,
        losses={"train/loss": 0.125, "val/loss": 0.25},
    ),
    m.ProgressReport(
        job_id=JOB,
        seq=3,
        at=1700000002.0,
        step=2,
        kind="predict",
        done=10,
        total=40,
        rate=12.5,
    ),
    m.TrainLog(
        job_id=JOB, seq=4, at=1700000003.0, step=0, lines=["one", "zwei"], dropped=7
    ),
    m.JobFetch(command_id="c-7", job_id=JOB, part="images", step=0),
    m.JobList(command_id="c-8"),
    m.JobList(command_id="c-9", after=JOB),
    m.JobListed(command_id="c-8", jobs=[SUMMARY, FAILED], more=True),
    m.JobListed(command_id="c-9", jobs=[]),
    m.JobDescribe(command_id="c-10", job_id=JOB),
    m.JobDescribed(command_id="c-10", job=SUMMARY, spec=SPEC),
    m.SharedJobId(command_id="c-11", job_id=JOB, probe="03" * 32),
    m.PathValidated(command_id="c-11", job_id=JOB, proof=DIGEST),
    m.SharedInputPath(command_id="c-12", job_id=JOB, path=f"jobs/{JOB}/input"),
    m.PathValidated(command_id="c-12", job_id=JOB),
    m.SharedStorageJob(command_id="c-13", job_id=JOB),
    m.SharedOutputPath(command_id="c-14", job_id=JOB, path=f"jobs/{JOB}/output"),
    m.SharedJobComplete(command_id="c-14", job_id=JOB, path=f"jobs/{JOB}/output"),
    m.PathError(
        command_id="c-15",
        job_id=JOB,
        error=SharedStorageUnusable(
            place="The shared storage of the worker gpu-1", reason="it does not answer"
        ).to_wire(),
    ),
    mounts.MountList(command_id="c-16"),
    mounts.MountList(command_id="c-17", place=PLACE, after="a.mp4"),
    mounts.MountListing(
        command_id="c-16",
        entries=[
            mounts.MountEntry(name="2026", kind="folder"),
            mounts.MountEntry(name="12:30 fly.mp4", kind="file", size_bytes=7_000_000),
        ],
        more=True,
        is_complete=False,
    ),
    mounts.MountResolve(
        command_id="c-18",
        files=[
            mounts.WantedFile(
                path="C:\\videos\\fly.mp4",
                size_bytes=7_000_000,
                sample=DIGEST,
                hint=PLACE,
            ),
            mounts.WantedFile(
                path="/home/ann/fly.pkg.slp",
                size_bytes=2_000_000,
                sample=DIGEST,
                member="fly.pkg.slp",
            ),
        ],
        job_id=JOB,
    ),
    mounts.MountResolved(
        command_id="c-18",
        found=[mounts.FoundFile(index=0, place=PLACE)],
        roots={"lab": "/data/lab"},
        is_complete=False,
    ),
    mounts.MountResolved(command_id="c-19"),
    tests.LinkTest(
        command_id="c-20", direction="to_worker", duration_s=2.5, max_bytes=1_000_000
    ),
    tests.LinkTest(
        command_id="c-21", direction="to_client", duration_s=5.0, max_bytes=1
    ),
    tests.LinkTestStop(command_id="c-21"),
    tests.LinkTestReport(command_id="c-20", size_bytes=983_040, seconds=0.25),
    tests.StorageTest(command_id="c-22", probe="03" * 32),
    tests.StorageTested(command_id="c-22", proof=DIGEST),
    queue.JobQueue(job_id=JOB, position=3, waiting=7, starts_in_s=720.0),
    queue.JobQueue(job_id=JOB, position=1, waiting=1),
    m.JobListed(command_id="c-20", jobs=[WAITING, REMOVED]),
    *model_samples.CONTROL,
]

METADATA: Final = s.PeerMetadata(
    tags=["gpu"], properties={"gpu_memory_mb": 24_576, "gpu": {"model": "A5000"}}
)
SDP: Final = "v=0\r\na=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\n"

PAYLOADS: Final[list[s.PeerPayload]] = [
    s.JobRequest(request_id="r-1", package_bytes=1_000_000, steps=3),
    s.JobResponse(request_id="r-1", accepts=True, queue_length=2),
    s.JobResponse(
        request_id="r-1",
        accepts=False,
        error=WorkerBusy(worker="gpu-1", reason="its queue is full").to_wire(),
    ),
    s.JobComplete(job_id=JOB, state="succeeded"),
    s.JobComplete(
        job_id=JOB, state="succeeded", model=model_samples.MODEL, alias="flies-v1"
    ),
    s.RegistryQuery(request_id="r-2", model="flies"),
    s.RegistryResponse(request_id="r-2", held=True),
    s.RegistryResponse(
        request_id="r-2", held=False, model=model_samples.MODEL, loads=False
    ),
    s.RelayRequest(request_id="r-3", relay_id="relay-" + "0a" * 16),
    s.RelayResponse(request_id="r-3", accepts=True),
    s.RelayResponse(
        request_id="r-3",
        accepts=False,
        error=RelayRefused(server="http://h:1", reason="it is off").to_wire(),
    ),
]

FROM_CLIENT: Final[list[s.ClientMessage]] = [
    s.Register(
        id="c-1",
        room_id="room-1",
        token="a.b.c",
        peer_id="worker-gpu-1",
        role="worker",
        resume_key="k" * 32,
        metadata=METADATA,
    ),
    s.Register(
        id="c-1a",
        room_id="room-1",
        token="",
        peer_id="client-1",
        role="client",
        resume_key="k" * 32,
        account="d.e.f",
    ),
    s.DiscoverPeers(id="c-2"),
    s.DiscoverPeers(
        id="c-3",
        role="worker",
        tags=["gpu"],
        properties={"gpu_memory_mb": {"$gte": 8192}, "gpu.model": "A5000"},
    ),
    s.UpdateMetadata(id="c-4", metadata=METADATA),
    s.PeerMessage(
        id="c-5",
        to="worker-gpu-1",
        payload=Raw(b'{"type":"registry_query","request_id":"r-2","model":"flies"}'),
    ),
    s.Offer(id="c-6", to="worker-gpu-1", sdp=SDP),
    s.Answer(id="c-7", to="client-1", sdp=SDP, offer_id="c-6"),
    s.Candidate(id="c-8", to="client-1", candidate="candidate:1", offer_id="c-6"),
    s.Ping(id="c-9"),
]

FROM_SERVER: Final[list[s.ServerMessage]] = [
    s.Registered(
        id="c-1", peer_id="worker-gpu-1", room_id="room-1", expires_at=1700007200.0
    ),
    s.PeerList(
        id="c-2",
        peers=[
            s.PeerInfo(
                peer_id="worker-gpu-1",
                role="worker",
                metadata=METADATA,
                connected_at=1700000000.0,
            )
        ],
    ),
    s.MetadataUpdated(id="c-4"),
    s.Delivered(id="c-5"),
    s.Pong(id="c-9", time=1700000000.25),
    s.ServerError(
        id="c-5",
        code="peer_not_found",
        message="The peer client-9 is not online.",
        fields={"peer_id": "client-9"},
    ),
    s.RelayedOffer(id="c-6", from_="client-1", sdp=SDP),
    s.RelayedAnswer(id="c-7", from_="worker-gpu-1", sdp=SDP, offer_id="c-6"),
    s.RelayedCandidate(
        id="c-8", from_="client-1", candidate="candidate:1", offer_id="c-6"
    ),
    s.RelayedPeerMessage(
        id="c-5",
        from_="client-1",
        payload=Raw(b'{"type":"registry_query","request_id":"r-2","model":"flies"}'),
    ),
]
