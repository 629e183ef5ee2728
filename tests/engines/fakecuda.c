/* A stand-in for the CUDA driver (libcuda.so.1) over host memory, for tests on machines without a GPU.

   The real `pycuda` and `cuda-python` packages load and run on it: device memory is malloc'd host memory, a context is
   a number, a graph is a list of copies and host functions. What is put into a stream is done when somebody waits for
   the stream, never before. It counts what is alive and how often each function was called. It is stricter than a
   driver and ends the process at: a copy beyond an allocation, or from or to host memory that is not registered (when
   it is put into a stream, and again when it is done); a stream or graph that is not alive; memory freed twice.
   Nothing may be allocated, freed or waited for in a thread that captures. It can be told to fail:
     FAKECUDA_FAIL="cuMemAlloc_v2:3=2"    the third call returns error 2 (out of memory); comma-separated
     FAKECUDA_FAIL="*:10+=999"            every call from the tenth on returns error 999 (a lost device)
     FAKECUDA_REPORT=path                 at exit: live allocations, contexts, streams, graphs, calls, "name value" a line
   A program tells it so itself with fakecuda_fail(spec), and asks fakecuda_live(what) and fakecuda_count(function).
   Build: gcc -shared -fPIC -O2 -Wl,-soname,libcuda.so.1 -o libcuda.so.1 fakecuda.c
   Symbols it does not implement return CUDA_ERROR_NOT_SUPPORTED (801); add them as they are needed (UNSUPPORTED below). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int R;                 /* CUresult */
typedef unsigned long long DP; /* CUdeviceptr */
typedef void *H;               /* any handle */
enum { OK = 0, INVALID = 1, OOM = 2, NO_CTX = 201, NOT_REGISTERED = 713, NOT_SUPPORTED = 801, IN_CAPTURE = 900, SPOILED = 901 };

static long live_mem, live_host, live_ctx, live_stream, live_event, live_graph, calls, retained;
static __thread H stack[32];
static __thread int depth;
static int primary; /* its address is the primary context */

static struct { char name[64]; long at, code, seen, sticky; } rules[16];
static int n_rules = -1;
static struct { const char *name; long calls; } functions[128];
static int n_functions;

void fakecuda_fail(const char *spec) {
    char *copy = spec ? strdup(spec) : NULL;
    n_rules = 0;
    for (char *p = copy ? strtok(copy, ",") : NULL; p && n_rules < 16; p = strtok(NULL, ",")) {
        memset(&rules[n_rules], 0, sizeof rules[0]);
        if (sscanf(p, "%63[^:]:%ld+=%ld", rules[n_rules].name, &rules[n_rules].at, &rules[n_rules].code) == 3) {
            rules[n_rules++].sticky = 1;
            continue;
        }
        if (sscanf(p, "%63[^:]:%ld=%ld", rules[n_rules].name, &rules[n_rules].at, &rules[n_rules].code) == 3) n_rules++;
    }
    free(copy);
}

long fakecuda_count(const char *name) {
    for (int i = 0; i < n_functions; i++)
        if (!strcmp(functions[i].name, name)) return functions[i].calls;
    return strcmp(name, "*") ? 0 : calls;
}

long fakecuda_live(const char *what) {
    return !strcmp(what, "device")     ? live_mem
           : !strcmp(what, "host")     ? live_host
           : !strcmp(what, "contexts") ? live_ctx
           : !strcmp(what, "retained") ? retained
           : !strcmp(what, "streams")  ? live_stream
           : !strcmp(what, "events")   ? live_event
           : !strcmp(what, "graphs")   ? live_graph
           : !strcmp(what, "depth")    ? depth
                                       : -1;
}

static void count(const char *name) {
    int f = 0;
    calls++;
    while (f < n_functions && functions[f].name != name) f++;
    if (f == n_functions && f < 128) functions[n_functions++].name = name;
    if (f < 128) functions[f].calls++;
}

static R gate(const char *name) {
    if (n_rules < 0) fakecuda_fail(getenv("FAKECUDA_FAIL"));
    count(name);
    for (int i = 0; i < n_rules; i++) {
        if (strcmp(rules[i].name, name) && strcmp(rules[i].name, "*")) continue;
        rules[i].seen++;
        if (rules[i].seen == rules[i].at || (rules[i].sticky && rules[i].seen > rules[i].at)) return (R)rules[i].code;
    }
    return OK;
}
#define GATE do { R r_ = gate(__func__); if (r_) return r_; } while (0)
#define COUNT count(__func__) /* of a function that does not fail, on a lost device either */
#define NEED_CTX do { if (!depth) return NO_CTX; } while (0)

__attribute__((destructor)) static void report(void) {
    const char *path = getenv("FAKECUDA_REPORT");
    FILE *f = path ? fopen(path, "w") : NULL;
    if (!f) return;
    fprintf(f, "device %ld\nhost %ld\ncontexts %ld\nretained %ld\nstreams %ld\nevents %ld\ngraphs %ld\ncalls %ld\n",
            live_mem, live_host, live_ctx, retained, live_stream, live_event, live_graph, calls);
    fclose(f);
}

R cuInit(unsigned f) { GATE; (void)f; return OK; }
R cuDriverGetVersion(int *v) { COUNT; const char *s = getenv("FAKECUDA_VERSION"); *v = s ? atoi(s) : 13000; return OK; }
static const struct { R code; const char *name, *text; } errors[] = {
    {OK, "CUDA_SUCCESS", "no error"},
    {INVALID, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OOM, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {46, "CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {NO_CTX, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {NOT_REGISTERED, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "pointer does not correspond to a registered memory region"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {IN_CAPTURE, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {SPOILED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};
static int error_at(R e) {
    for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == e) return (int)i;
    return -1;
}
R cuGetErrorString(R e, const char **s) { int i = error_at(e); *s = i < 0 ? "an error unknown to fakecuda" : errors[i].text; return i < 0 ? INVALID : OK; }
R cuGetErrorName(R e, const char **s) { int i = error_at(e); *s = i < 0 ? "CUDA_ERROR_UNKNOWN" : errors[i].name; return i < 0 ? INVALID : OK; }
R cuDeviceGetCount(int *n) { COUNT; *n = 1; return OK; }
R cuDeviceGet(int *d, int i) { GATE; *d = i; return i == 0 ? OK : 101; }
R cuDeviceGetName(char *s, int n, int d) { COUNT; (void)d; snprintf(s, n, "Fake GPU"); return OK; }
R cuDeviceGetUuid_v2(char *u, int d) { COUNT; (void)d; memset(u, 7, 16); return OK; }
R cuDeviceTotalMem_v2(size_t *b, int d) { COUNT; (void)d; *b = 1ull << 32; return OK; }
R cuDeviceComputeCapability(int *a, int *b, int d) { COUNT; (void)d; *a = 8; *b = 7; return OK; }
R cuDeviceGetAttribute(int *v, int a, int d) { COUNT; (void)d; *v = a == 75 ? 8 : a == 76 ? 7 : 1; return OK; }
R cuDeviceGetPCIBusId(char *s, int n, int d) { COUNT; (void)d; snprintf(s, n, "0000:00:00.0"); return OK; }

R cuCtxCreate_v4(H *c, void *p, unsigned f, int d) { GATE; (void)p; (void)f; (void)d; *c = malloc(1); live_ctx++; stack[depth++] = *c; return OK; }
R cuCtxCreate_v2(H *c, unsigned f, int d) { return cuCtxCreate_v4(c, NULL, f, d); }
R cuCtxDestroy_v2(H c) { GATE; if (depth && stack[depth - 1] == c) depth--; if (c != (H)&primary) { free(c); live_ctx--; } return OK; }
R cuCtxDetach(H c) { return cuCtxDestroy_v2(c); }
R cuCtxAttach(H *c, unsigned f) { COUNT; (void)f; NEED_CTX; *c = stack[depth - 1]; return OK; }
R cuCtxPushCurrent_v2(H c) { GATE; stack[depth++] = c; return OK; }
R cuCtxPopCurrent_v2(H *c) { R r = gate(__func__); NEED_CTX; depth--; if (c) *c = stack[depth]; return r; } /* off the stack, whatever it says of the device */
R cuCtxGetCurrent(H *c) { COUNT; *c = depth ? stack[depth - 1] : NULL; return OK; }
R cuCtxSetCurrent(H c) { COUNT; if (depth) depth--; if (c) stack[depth++] = c; return OK; }
R cuCtxGetDevice(int *d) { COUNT; NEED_CTX; *d = 0; return OK; }
R cuCtxGetApiVersion(H c, unsigned *v) { COUNT; (void)c; *v = 4; return OK; }
R cuDevicePrimaryCtxRetain(H *c, int d) { GATE; (void)d; retained++; *c = (H)&primary; return OK; }
R cuDevicePrimaryCtxRelease_v2(int d) { GATE; (void)d; retained--; return OK; }

/* What is alive, and what it is: 'd' device memory, 'h' registered host memory, 's' stream, 'g' graph, 'e' executable
   graph. */
static struct { char kind, *at; size_t n; } things[1024];

static int thing(char kind, const void *at) {
    for (int i = 0; i < 1024; i++)
        if (things[i].kind == kind && things[i].at == at) return i;
    return -1;
}
static int born(char kind, void *at, size_t n) {
    for (int i = 0; i < 1024; i++)
        if (!things[i].kind) {
            things[i].kind = kind; things[i].at = at; things[i].n = n;
            return 1;
        }
    return 0;
}
static void fault(const char *what, const void *at, size_t n) {
    fprintf(stderr, "fakecuda: %s (%p, %zu bytes)\n", what, at, n);
    abort();
}
static void *alive(char kind, void *at) {
    if (thing(kind, at) < 0)
        fault(kind == 's' ? "no such stream" : kind == 'd' ? "no such allocation" : "no such graph", at, 0);
    return at;
}
static void dies(char kind, void *at) { alive(kind, at); things[thing(kind, at)].kind = 0; }
static void within(char kind, const void *p, size_t n) {
    const char *at = p;
    for (int i = 0; i < 1024; i++)
        if (things[i].kind == kind && at >= things[i].at && at + n <= things[i].at + things[i].n) return;
    fault(kind == 'd' ? "a copy beyond what is allocated on the device" : "a copy beyond what is registered of the host", p, n);
}

/* A copy, whose ends are of a kind each ('-' is not looked at), or a call. */
typedef struct { void *d; const void *s; size_t n; char dk, sk; void (*call)(void *); void *data; } Op;
typedef struct { Op ops[64]; int n; } Graph;
typedef struct { Graph *capture, pending; int spoiled; } Stream;
static __thread Stream *capturing;
/* After a lost device: nothing of it is left to be given back. */
void fakecuda_forget(void) {
    live_mem = live_host = live_ctx = live_stream = live_event = live_graph = retained = depth = 0;
    capturing = NULL;
}
#define NOT_CAPTURING do { if (capturing) { capturing->spoiled = 1; return IN_CAPTURE; } } while (0)

static void look(const Op *op) {
    if (op->call) return;
    if (op->dk != '-') within(op->dk, op->d, op->n);
    if (op->sk != '-') within(op->sk, op->s, op->n);
}
static void act(const Op *op) {
    look(op);
    if (op->call) op->call(op->data); else memmove(op->d, op->s, op->n);
}
static void drain(Stream *stream) {
    for (int i = 0; i < stream->pending.n; i++) act(&stream->pending.ops[i]);
    stream->pending.n = 0;
}
static void drain_all(void) {
    for (int i = 0; i < 1024; i++)
        if (things[i].kind == 's') drain((Stream *)things[i].at);
}
static R enqueue(Op op, H t) {
    if (!depth) return NO_CTX;
    look(&op);
    Stream *stream = t ? alive('s', t) : NULL;
    if (!stream) { NOT_CAPTURING; drain_all(); act(&op); return OK; }
    Graph *to = stream->capture ? stream->capture : &stream->pending;
    if (to->n == 64) { if (stream->capture) return OOM; drain(stream); }
    to->ops[to->n++] = op;
    return OK;
}
#define P(p) ((void *)(uintptr_t)(p))

R cuMemAlloc_v2(DP *p, size_t n) {
    GATE; NEED_CTX; NOT_CAPTURING;
    char *m = aligned_alloc(256, n / 256 * 256 + 256);
    if (!m || !born('d', m, n)) return OOM;
    memset(m, 0xCD, n);
    live_mem++;
    *p = (DP)(uintptr_t)m;
    return OK;
}
R cuMemFree_v2(DP p) { GATE; NEED_CTX; NOT_CAPTURING; dies('d', P(p)); free(P(p)); live_mem--; return OK; }
R cuMemHostAlloc(void **p, size_t n, unsigned f) { GATE; (void)f; NEED_CTX; NOT_CAPTURING; *p = aligned_alloc(4096, (n + 4095) / 4096 * 4096); if (!*p || !born('h', *p, n)) return OOM; live_host++; return OK; }
R cuMemAllocHost_v2(void **p, size_t n) { return cuMemHostAlloc(p, n, 0); }
R cuMemFreeHost(void *p) { GATE; NOT_CAPTURING; dies('h', p); free(p); live_host--; return OK; }
R cuMemHostRegister_v2(void *p, size_t n, unsigned f) { GATE; (void)f; NEED_CTX; if ((uintptr_t)p % 4096 || n % 4096 || !born('h', p, n)) return INVALID; live_host++; return OK; }
R cuMemHostUnregister(void *p) { GATE; NEED_CTX; if (thing('h', p) < 0) return NOT_REGISTERED; dies('h', p); live_host--; return OK; }
R cuMemGetInfo_v2(size_t *a, size_t *b) { COUNT; NEED_CTX; *a = *b = 1ull << 32; return OK; }

static R copy(void *d, const void *s, size_t n, char dk, char sk, H t) { return enqueue((Op){.d = d, .s = s, .n = n, .dk = dk, .sk = sk}, t); }
R cuMemcpyHtoD_v2(DP d, const void *s, size_t n) { GATE; return copy(P(d), s, n, 'd', '-', NULL); }
R cuMemcpyDtoH_v2(void *d, DP s, size_t n) { GATE; return copy(d, P(s), n, '-', 'd', NULL); }
R cuMemcpyDtoD_v2(DP d, DP s, size_t n) { GATE; return copy(P(d), P(s), n, 'd', 'd', NULL); }
R cuMemcpyHtoDAsync_v2(DP d, const void *s, size_t n, H t) { GATE; return copy(P(d), s, n, 'd', 'h', t); }
R cuMemcpyDtoHAsync_v2(void *d, DP s, size_t n, H t) { GATE; return copy(d, P(s), n, 'h', 'd', t); }
R cuMemcpyDtoDAsync_v2(DP d, DP s, size_t n, H t) { GATE; return copy(P(d), P(s), n, 'd', 'd', t); }
R cuMemsetD8_v2(DP d, unsigned char v, size_t n) { GATE; NEED_CTX; NOT_CAPTURING; drain_all(); within('d', P(d), n); memset(P(d), v, n); return OK; }
R cuMemsetD8Async(DP d, unsigned char v, size_t n, H t) { (void)t; return cuMemsetD8_v2(d, v, n); }
R cuLaunchHostFunc(H t, void (*call)(void *), void *data) { GATE; return enqueue((Op){.call = call, .data = data}, t); }

R cuStreamCreate(H *s, unsigned f) { GATE; (void)f; NEED_CTX; *s = calloc(1, sizeof(Stream)); born('s', *s, 0); live_stream++; return OK; }
R cuStreamDestroy_v2(H s) { GATE; drain(alive('s', s)); dies('s', s); free(s); live_stream--; return OK; }
R cuStreamBeginCapture_v2(H t, int mode) {
    GATE; NEED_CTX; NOT_CAPTURING;
    if (mode != 1) return INVALID; /* another mode than thread-local breaks other threads' streams */
    Stream *stream = alive('s', t);
    stream->capture = calloc(1, sizeof(Graph));
    stream->spoiled = 0;
    capturing = stream;
    live_graph++;
    return OK;
}
R cuStreamEndCapture(H t, H *g) {
    R r = gate(__func__); /* whatever it is: the stream captures no more */
    NEED_CTX;
    Stream *stream = alive('s', t);
    *g = stream->capture;
    if (!*g) return INVALID;
    stream->capture = NULL;
    capturing = NULL;
    if (!r && stream->spoiled) r = SPOILED;
    if (r) { free(*g); *g = NULL; live_graph--; return r; }
    born('g', *g, 0);
    return OK;
}
R cuGraphInstantiateWithFlags(H *e, H g, unsigned long long f) {
    GATE; (void)f; NEED_CTX; NOT_CAPTURING;
    *e = memcpy(malloc(sizeof(Graph)), alive('g', g), sizeof(Graph));
    born('e', *e, 0);
    live_graph++;
    return OK;
}
R cuGraphLaunch(H e, H t) {
    GATE; NEED_CTX; NOT_CAPTURING;
    Graph *graph = alive('e', e);
    R r = OK;
    for (int i = 0; i < graph->n && r == OK; i++) r = enqueue(graph->ops[i], alive('s', t));
    return r;
}
R cuGraphExecDestroy(H e) { GATE; dies('e', e); free(e); live_graph--; return OK; }
R cuGraphDestroy(H g) { GATE; dies('g', g); free(g); live_graph--; return OK; }
R cuStreamSynchronize(H s) { GATE; NEED_CTX; NOT_CAPTURING; if (s) drain(alive('s', s)); else drain_all(); return OK; }
R cuStreamQuery(H s) { GATE; NOT_CAPTURING; if (s) drain(alive('s', s)); else drain_all(); return OK; }
R cuStreamWaitEvent(H s, H e, unsigned f) { COUNT; (void)s; (void)e; (void)f; return OK; }
R cuCtxSynchronize(void) { GATE; NEED_CTX; NOT_CAPTURING; drain_all(); return OK; }
R cuEventCreate(H *e, unsigned f) { GATE; (void)f; NEED_CTX; *e = malloc(1); live_event++; return OK; }
R cuEventDestroy_v2(H e) { COUNT; free(e); live_event--; return OK; }
R cuEventRecord(H e, H s) { COUNT; (void)e; (void)s; return OK; }
R cuEventSynchronize(H e) { GATE; (void)e; drain_all(); return OK; }
R cuEventQuery(H e) { COUNT; (void)e; return OK; }
R cuEventElapsedTime_v2(float *ms, H a, H b) { COUNT; (void)a; (void)b; *ms = 0.01f; return OK; }

/* cuda-python asks for every function by its plain name; the newest version here is the answer, NULL where there is none. */
R cuGetProcAddress_v2(const char *name, void **f, int version, uint64_t flags, int *status) {
    static const char *suffix[] = {"_v4", "_v3", "_v2", ""};
    (void)version; (void)flags;
    *f = NULL;
    for (int i = 0; i < 4 && !*f; i++) {
        char full[128];
        snprintf(full, sizeof full, "%s%s", name, suffix[i]);
        Dl_info self;
        static void *lib;
        if (!lib && dladdr((void *)&cuInit, &self)) lib = dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD);
        *f = dlsym(lib, full);
    }
    if (status) *status = *f ? 0 : 1;
    return OK;
}

#define UNSUPPORTED(name) R name(void) { calls++; return NOT_SUPPORTED; }
/* What pycuda's extension module is linked against and this stand-in does not do. */
UNSUPPORTED(cuArray3DCreate_v2) UNSUPPORTED(cuArray3DGetDescriptor_v2) UNSUPPORTED(cuArrayCreate_v2) UNSUPPORTED(cuArrayDestroy)
UNSUPPORTED(cuArrayGetDescriptor_v2) UNSUPPORTED(cuCtxDisablePeerAccess) UNSUPPORTED(cuCtxEnablePeerAccess) UNSUPPORTED(cuCtxGetCacheConfig)
UNSUPPORTED(cuCtxGetLimit) UNSUPPORTED(cuCtxGetSharedMemConfig) UNSUPPORTED(cuCtxSetCacheConfig) UNSUPPORTED(cuCtxSetLimit)
UNSUPPORTED(cuCtxSetSharedMemConfig) UNSUPPORTED(cuDeviceCanAccessPeer) UNSUPPORTED(cuDeviceGetByPCIBusId) UNSUPPORTED(cuFuncGetAttribute)
UNSUPPORTED(cuFuncSetAttribute) UNSUPPORTED(cuFuncSetBlockShape) UNSUPPORTED(cuFuncSetCacheConfig) UNSUPPORTED(cuFuncSetSharedSize)
UNSUPPORTED(cuIpcCloseMemHandle) UNSUPPORTED(cuIpcGetEventHandle) UNSUPPORTED(cuIpcGetMemHandle) UNSUPPORTED(cuIpcOpenEventHandle)
UNSUPPORTED(cuIpcOpenMemHandle_v2) UNSUPPORTED(cuLaunch) UNSUPPORTED(cuLaunchGrid) UNSUPPORTED(cuLaunchGridAsync)
UNSUPPORTED(cuLaunchKernel) UNSUPPORTED(cuLinkAddData_v2) UNSUPPORTED(cuLinkAddFile_v2) UNSUPPORTED(cuLinkComplete)
UNSUPPORTED(cuLinkCreate_v2) UNSUPPORTED(cuLinkDestroy) UNSUPPORTED(cuMemAllocManaged) UNSUPPORTED(cuMemAllocPitch_v2)
UNSUPPORTED(cuMemGetAddressRange_v2) UNSUPPORTED(cuMemHostGetDevicePointer_v2) UNSUPPORTED(cuMemHostGetFlags)
UNSUPPORTED(cuMemcpy2DAsync_v2) UNSUPPORTED(cuMemcpy2DUnaligned_v2)
UNSUPPORTED(cuMemcpy2D_v2) UNSUPPORTED(cuMemcpy3DAsync_v2) UNSUPPORTED(cuMemcpy3DPeer) UNSUPPORTED(cuMemcpy3DPeerAsync)
UNSUPPORTED(cuMemcpy3D_v2) UNSUPPORTED(cuMemcpyAtoA_v2) UNSUPPORTED(cuMemcpyAtoD_v2) UNSUPPORTED(cuMemcpyAtoH_v2)
UNSUPPORTED(cuMemcpyDtoA_v2) UNSUPPORTED(cuMemcpyHtoA_v2) UNSUPPORTED(cuMemcpyPeer) UNSUPPORTED(cuMemcpyPeerAsync)
UNSUPPORTED(cuMemsetD16Async) UNSUPPORTED(cuMemsetD16_v2) UNSUPPORTED(cuMemsetD2D16Async) UNSUPPORTED(cuMemsetD2D16_v2)
UNSUPPORTED(cuMemsetD2D32Async) UNSUPPORTED(cuMemsetD2D32_v2) UNSUPPORTED(cuMemsetD2D8Async) UNSUPPORTED(cuMemsetD2D8_v2)
UNSUPPORTED(cuMemsetD32Async) UNSUPPORTED(cuMemsetD32_v2) UNSUPPORTED(cuModuleGetFunction) UNSUPPORTED(cuModuleGetGlobal_v2)
UNSUPPORTED(cuModuleGetSurfRef) UNSUPPORTED(cuModuleGetTexRef) UNSUPPORTED(cuModuleLoad) UNSUPPORTED(cuModuleLoadData)
UNSUPPORTED(cuModuleLoadDataEx) UNSUPPORTED(cuModuleUnload) UNSUPPORTED(cuParamSetSize) UNSUPPORTED(cuParamSetTexRef)
UNSUPPORTED(cuParamSetf) UNSUPPORTED(cuParamSeti) UNSUPPORTED(cuParamSetv) UNSUPPORTED(cuProfilerInitialize) UNSUPPORTED(cuProfilerStart)
UNSUPPORTED(cuProfilerStop) UNSUPPORTED(cuStreamAttachMemAsync) UNSUPPORTED(cuSurfRefGetArray) UNSUPPORTED(cuSurfRefSetArray)
UNSUPPORTED(cuTexRefCreate) UNSUPPORTED(cuTexRefDestroy) UNSUPPORTED(cuTexRefGetAddressMode) UNSUPPORTED(cuTexRefGetAddress_v2)
UNSUPPORTED(cuTexRefGetArray) UNSUPPORTED(cuTexRefGetFilterMode) UNSUPPORTED(cuTexRefGetFlags) UNSUPPORTED(cuTexRefGetFormat)
UNSUPPORTED(cuTexRefSetAddress2D_v3) UNSUPPORTED(cuTexRefSetAddressMode) UNSUPPORTED(cuTexRefSetAddress_v2) UNSUPPORTED(cuTexRefSetArray)
UNSUPPORTED(cuTexRefSetFilterMode) UNSUPPORTED(cuTexRefSetFlags) UNSUPPORTED(cuTexRefSetFormat)
