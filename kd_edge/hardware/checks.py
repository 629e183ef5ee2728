"""Checks of a machine's devices. Each check runs in its own process, which a driver may hang or crash.

A check returns its results; a ``KdEdgeError`` or any other exception is a failure, and ``Skip`` means that the device
or its package is missing.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import resource
import statistics
import tempfile
import time
from array import array
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kd_edge.artifact import Artifact, load
from kd_edge.engines import ENGINES, Engine, engine_name, open_engine
from kd_edge.engines.choice import QUANTISED_TOLERANCE, TOLERANCE
from kd_edge.engines.cuda import BINDINGS, cuda_binding, find_gpu, open_device
from kd_edge.engines.tensorrt import plans
from kd_edge.engines.tensorrt.library import Kind, load_library
from kd_edge.errors import ArtifactError, DeviceError, EngineError, KdEdgeError
from kd_edge.files import CACHE_VARIABLE
from kd_edge.packages import EXTRA_OF, import_extra
from kd_edge.runtime import Recognizer
from kd_edge.runtime.cameras import Wanted, make_camera, timeouts_of
from kd_edge.runtime.cameras.config import camera_config
from kd_edge.runtime.cameras.listing import list_cameras

Figures = Mapping[str, float | str]

PUSHES, WARM = 120, 20
BATCHES = (1, 3)
NOISE_RUNS = 5
COPIED_BYTES = 1_000_000
CAMERA_SECONDS = 3.0
ROS_IMAGES, ROS_PERIOD, ROS_SECONDS = 60, 1 / 30, 2.0
LEAK_MB = 40.0
"""Memory that reopening an engine may leave allocated: libraries keep pools."""


class Skip(Exception):
    """The device or its software is missing."""


class Check(NamedTuple):
    """One check.

    Attributes:
        what: Description of the check.
        run: Runs the check, given the artifact.
        seconds: Time limit.
    """

    what: str
    run: Callable[[Path], Figures]
    seconds: float = 60.0


def all_checks() -> dict[str, Check]:
    """All checks, by name."""
    checks = {"gpu": Check("an NVIDIA GPU and its driver", _gpu)}
    for name in BINDINGS:
        checks[f"binding {name}"] = Check(f"bytes to the GPU and back through {name}", partial(_binding, name))
    for name in ENGINES:
        seconds = 3600.0 if name.startswith("tensorrt") else 120.0  # includes a build
        checks[f"engine {name}"] = Check(f"the model on {name}, against ONNX Runtime", partial(_engine, name), seconds)
    for kind in ("tensorrt", "tensorrt-rtx"):
        checks[f"plan {kind}"] = Check(
            f"a {kind} plan: built, kept, refused when changed", partial(_plan, kind), 3600.0
        )
    checks["training cuda"] = Check("a training step on CUDA", _training, 300.0)
    checks["cameras"] = Check("every V4L2 camera that is attached", _cameras, 120.0)
    checks["realsense"] = Check("RealSense cameras", _realsense)
    checks["ros"] = Check("images of ROS 2 through its middleware, in one process", _ros, 120.0)
    checks["real-time"] = Check("real-time scheduling, as priority in a camera file asks for it", _realtime)
    return checks


def _gpu(model: Path) -> Figures:
    try:
        gpu = find_gpu()
    except EngineError as error:
        raise Skip(error.found) from error
    return {"gpu": str(gpu)}


def _binding(name: str, model: Path) -> Figures:
    _gpu(model)
    if not BINDINGS[name].is_installed():
        raise Skip(f"not installed (pip install 'kd-edge[{EXTRA_OF[BINDINGS[name].library]}]')")
    with closing(open_device(cuda_binding(name))) as device, device.current():
        lease = device.lease()
        there, back = lease.pinned(COPIED_BYTES), lease.pinned(COPIED_BYTES)
        address = lease.memory(COPIED_BYTES)
        there[:] = np.random.default_rng(0).integers(0, 256, COPIED_BYTES, dtype=np.uint8)
        started = time.perf_counter()
        device.upload(address, there)
        device.download(back, address)
        device.synchronize()
        milliseconds = 1e3 * (time.perf_counter() - started)
    if not np.array_equal(there, back):
        raise DeviceError("bytes came back changed", "the same bytes", "test the GPU's memory")
    return {"round trip of 1 MB, ms": milliseconds, "knows CUDA graphs": str(device.can_capture)}


def _engine(name: str, model: Path) -> Figures:
    """Parity, speed and memory of an engine on a model."""
    artifact, kind = load(model), ENGINES[name]
    if not kind.is_installed():
        raise Skip(f"not installed (pip install 'kd-edge[{_extra(name)}]')")
    for why in (kind.unsuited(artifact), kind.obstacle()):
        if why is not None:
            raise Skip(why)
    figures: dict[str, float | str] = {}
    with Recognizer.load(artifact, engine=engine_name(name), strict=True) as recognizer:
        engine = recognizer.engine
        figures |= {"engine": engine.name, "runs on": ", ".join(engine.providers)}
        if recognizer.self_test_error is not None:
            figures["self-test: largest difference of a logit"] = recognizer.self_test_error
    with open_engine(artifact, engine=engine_name(name), strict=True) as opened, open_engine(artifact) as reference:
        for batch in BATCHES:
            figures[f"largest relative difference, {batch} at once"] = _parity(opened, reference, batch, artifact)
        median, late = _speed(opened)
        figures |= {"a step, ms, median": median, "a step, ms, 95 of 100": late}
        figures["times as fast as ONNX Runtime on one core"] = _speed(reference)[0] / median
        if opened.notes:
            figures["notes"] = "; ".join(opened.notes)
    figures["left behind by opening it again, MB"] = _left_behind(artifact, name)
    return figures


def _parity(engine: Engine, reference: Engine, batch: int, artifact: Artifact) -> float:
    """The largest difference of an output on noise, relative to the output's largest value."""
    tested, expected, rng = engine.bind(batch), reference.bind(batch), np.random.default_rng(batch)
    worst = 0.0
    for _ in range(NOISE_RUNS):
        for name in tested.inputs:
            tested.inputs[name][:] = expected.inputs[name][:] = rng.standard_normal(tested.inputs[name].shape)
        tested.run()
        expected.run()
        for name, wanted in expected.outputs.items():
            scale = max(float(np.abs(wanted).max()), 1e-6)
            worst = max(worst, float(np.abs(tested.outputs[name] - wanted).max()) / scale)
    most = TOLERANCE.get(artifact.manifest.precision, QUANTISED_TOLERANCE)
    if not worst <= most:
        raise ArtifactError(f"outputs differ by {worst:.2g} of the largest one", f"at most {most:g}", "another engine")
    return worst


def _speed(engine: Engine) -> tuple[float, float]:
    """Median and 95th percentile of a step's duration in ms."""
    binding, times = engine.bind(1), []
    for _ in range(PUSHES):
        started = time.perf_counter()
        binding.run()
        times.append(1e3 * (time.perf_counter() - started))
    times = times[WARM:]
    return statistics.median(times), sorted(times)[len(times) * 95 // 100]


def _left_behind(artifact: Artifact, name: str) -> float:
    def once() -> None:
        with open_engine(artifact, engine=engine_name(name), strict=True) as engine:
            engine.bind(1).run()

    once()
    before = _resident_mb()
    for _ in range(3):
        once()
    left = _resident_mb() - before
    if left > LEAK_MB:
        raise ArtifactError(f"opening it three times more left {left:.0f} MB", f"at most {LEAK_MB:g}", "report it")
    return left


def _plan(kind: Kind, model: Path) -> Figures:
    """Build, reuse and reject a plan in a temporary cache."""
    artifact = load(model)
    _need(ENGINES[kind].library)
    for why in (ENGINES[kind].unsuited(artifact), ENGINES[kind].obstacle()):
        if why is not None:
            raise Skip(why)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE_VARIABLE] = folder
        library, gpu = load_library(kind), find_gpu()
        built = plans.obtain(artifact, library, gpu)
        if built.path is None:
            raise ArtifactError(f"the plan is not kept: {built.not_kept}", "a kept one", "report it")
        started = time.perf_counter()
        again = plans.obtain(artifact, library, gpu)
        seconds = time.perf_counter() - started
        if again.was_built or again.content != built.content:
            raise ArtifactError("the plan that was kept is not used", "the same one", "report it")
        content = bytearray(built.content)
        content[len(content) // 2] ^= 1
        built.path.write_bytes(content)
        if plans.is_ready(artifact, kind, gpu):
            raise ArtifactError("a plan that was changed is taken", "a refusal", "report it")
    return {
        "library": library.name,
        "build, s": built.figures.seconds,
        "plan, MB": built.figures.plan_bytes / 1e6,
        "read again, s": seconds,
        "layers": str(built.figures.shares),
    }


def _training(model: Path) -> Figures:
    """Train a small network for a few steps in float32 and in bfloat16."""
    try:
        torch = import_extra("torch", "train")
        train = importlib.import_module("kd_edge.models")
    except KdEdgeError as error:
        raise Skip(error.found) from error
    if not torch.cuda.is_available():
        raise Skip(f"torch {torch.__version__} sees no CUDA device")
    figures: dict[str, float | str] = {"torch": torch.__version__, "device": torch.cuda.get_device_name(0)}
    for number, autocast in (("float32", False), ("bfloat16", True)):
        torch.manual_seed(0)
        network = train.build_model(train.ModelConfig(backbone="resnet10_thin"), 3, 10, 4).cuda()
        optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
        clips, labels = torch.randn(8, 4, 3, 96, 96, device="cuda"), torch.arange(8, device="cuda")
        torch.cuda.reset_peak_memory_stats()
        losses, started = [], time.perf_counter()
        for _ in range(5):
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
                loss = torch.nn.functional.cross_entropy(network(clips), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss))
        if not np.isfinite(losses).all():
            raise DeviceError(f"losses of {losses} in {number}", "finite ones", "report it")
        figures[f"a step in {number}, ms"] = 200 * (time.perf_counter() - started)
        figures[f"most memory in {number}, MB"] = torch.cuda.max_memory_allocated() / 1e6
    return figures


def _cameras(model: Path) -> Figures:
    """Read each V4L2 camera for three seconds; no picture is stored."""
    attached = [camera for camera in list_cameras().attached if camera.device.startswith("/dev/")]
    if not attached:
        raise Skip("no video device (/dev/video*)")
    figures: dict[str, float | str] = {}
    faults = []
    for found in attached:
        try:
            figures[found.device] = _camera(found.device, load(model))
        except KdEdgeError as error:
            faults.append(f"{found.device}: {error.found}")
    if faults:
        raise DeviceError("; ".join(faults), "cameras that deliver", "kd-edge cameras; is another program using them?")
    return figures


def _camera(device: str, artifact: Artifact) -> str:
    uri = f"v4l2:{device}"
    camera = make_camera(uri, camera_config(uri), Wanted.by(artifact.manifest), realtime=False)
    stamps, kind, end = [], "", time.monotonic() + CAMERA_SECONDS
    camera.open()
    try:
        while time.monotonic() < end:
            frame = camera.read(timeouts_of(camera).read_timeout_ms / 1e3)
            if frame is not None:
                stamps.append(frame.captured_ns)
                kind = f"{frame.image.dtype} {'x'.join(map(str, frame.image.shape))}, mean {frame.image.mean():.0f}"
    finally:
        camera.close()
    if len(stamps) < 2:
        raise DeviceError(
            f"{len(stamps)} frames in {CAMERA_SECONDS:g} s", "a picture every so often", "kd-edge cameras"
        )
    gaps = np.diff(np.array(stamps)) / 1e6
    return f"{kind}, {1e3 / gaps.mean():.1f} frames/s, gaps {gaps.min():.0f} to {gaps.max():.0f} ms"


def _realsense(model: Path) -> Figures:
    """List models and firmware, without serial numbers."""
    if importlib.util.find_spec("pyrealsense2") is None:
        raise Skip("not installed (pip install 'kd-edge[realsense]')")
    from kd_edge.runtime.cameras.librealsense import attached

    devices = attached()
    if not devices:
        raise Skip("no RealSense camera is attached")
    return {f"device {number}": device.description for number, device in enumerate(devices)}


def _ros(model: Path) -> Figures:
    """Publish and receive 640x480 images at 30 Hz: count and delay of the received ones."""
    if importlib.util.find_spec("rclpy") is None:
        raise Skip("no rclpy for this Python (source ROS 2, or pip install its wheels); kd-edge doctor says more")
    rclpy, signals = importlib.import_module("rclpy"), importlib.import_module("rclpy.signals")
    context = rclpy.context.Context()
    rclpy.init(context=context, signal_handler_options=signals.SignalHandlerOptions.NO)
    try:
        middleware = rclpy.utilities.get_rmw_implementation_identifier()
        figures: dict[str, float | str] = {"middleware": middleware, "domain": float(context.get_domain_id())}
        for encoding, pixel_bytes in (("mono8", 1), ("mono16", 2)):
            for reliability in ("RELIABLE", "BEST_EFFORT"):
                delays = _ros_round(rclpy, context, encoding, pixel_bytes, reliability)
                what = f"{encoding}, {reliability.lower().replace('_', ' ')}"
                figures[f"{what}: received of {ROS_IMAGES}"] = float(len(delays))
                if delays:
                    figures[f"{what}: median delay, ms"] = 1e3 * statistics.median(delays)
    finally:
        rclpy.shutdown(context=context)
    if not figures[f"mono8, reliable: received of {ROS_IMAGES}"]:
        raise DeviceError("no image came back", "all of them", "kd-edge doctor; is multicast allowed on loopback?")
    return figures


def _ros_round(rclpy: Any, context: Any, encoding: str, pixel_bytes: int, reliability: str) -> list[float]:
    """Delay of each received image in s."""
    qos = importlib.import_module("rclpy.qos")
    kind = importlib.import_module("sensor_msgs.msg").Image
    profile = qos.QoSProfile(depth=5, reliability=getattr(qos.ReliabilityPolicy, reliability))
    node = rclpy.create_node("kd_edge_hardware_check", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    delays: list[float] = []
    topic = f"kd_edge_hardware_check_{os.getpid()}/{encoding}_{reliability.lower()}"
    node.create_subscription(kind, topic, lambda m: delays.append(time.monotonic() - float(m.header.frame_id)), profile)
    publisher = node.create_publisher(kind, topic, profile)
    message = kind(height=480, width=640, encoding=encoding, step=640 * pixel_bytes)
    message.data = array("B", bytes(640 * 480 * pixel_bytes))
    end = time.monotonic() + ROS_SECONDS
    while publisher.get_subscription_count() < 1 and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.05)
    for _ in range(ROS_IMAGES):
        message.header.frame_id = repr(time.monotonic())
        publisher.publish(message)
        due = time.monotonic() + ROS_PERIOD
        while (left := due - time.monotonic()) > 0:
            executor.spin_once(timeout_sec=left)
    end = time.monotonic() + ROS_SECONDS
    while len(delays) < ROS_IMAGES and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.05)
    executor.shutdown()
    node.destroy_node()
    return delays


def _realtime(model: Path) -> Figures:
    """Check whether this user may request SCHED_FIFO."""
    most = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError as error:
        raise Skip(f"not allowed to this user (RLIMIT_RTPRIO {most}); LimitRTPRIO of the service allows it") from error
    try:  # a capability can allow more than the limit
        most = os.sched_get_priority_max(os.SCHED_FIFO)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(most))
    except PermissionError:
        most = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return {"allowed up to": float(most)}


def _extra(engine: str) -> str:
    """The extra that installs an engine."""
    return "gpu" if engine == "cuda" else EXTRA_OF[ENGINES[engine].library]


def _need(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise Skip(f"not installed (pip install 'kd-edge[{EXTRA_OF[module]}]')")


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
