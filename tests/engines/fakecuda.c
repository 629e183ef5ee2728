/* A stand-in for the CUDA driver (libcuda.so.1) over host memory, for tests on machines without a GPU.

   The real `pycuda` and `cuda-python` packages load and run on it: device memory is malloc'd host memory, a stream is
   in order and already done, a context is a number, a graph is a list of copies and host functions. It counts what is
   alive and how often each function was called, ends the process at a copy beyond an allocation, and can be told to
   fail:
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
enum { OK = 0, INVALID = 1, OOM = 2, NO_CTX = 201, NOT_SUPPORTED = 801 };

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

/* After a lost device: nothing of it is left to be given back. */
void fakecuda_forget(void) { live_mem = live_host = live_ctx = live_stream = live_event = live_graph = retained = depth = 0; }

static R gate(const char *name) {
    int f = 0;
    if (n_rules < 0) fakecuda_fail(getenv("FAKECUDA_FAIL"));
    calls++;
    while (f < n_functions && functions[f].name != name) f++;
    if (f == n_functions && f < 128) functions[n_functions++].name = name;
    if (f < 128) functions[f].calls++;
    for (int i = 0; i < n_rules; i++) {
        if (strcmp(rules[i].name, name) && strcmp(rules[i].name, "*")) continue;
        rules[i].seen++;
        if (rules[i].seen == rules[i].at || (rules[i].sticky && rules[i].seen > rules[i].at)) return (R)rules[i].code;
    }
    return OK;
}
#define GATE do { R r_ = gate(__func__); if (r_) return r_; } while (0)
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
R cuDriverGetVersion(int *v) { const char *s = getenv("FAKECUDA_VERSION"); *v = s ? atoi(s) : 13000; return OK; }
R cuGetErrorString(R e, const char **s) { *s = e == OOM ? "out of memory" : e == NO_CTX ? "invalid device context" : e ? "fakecuda error" : "no error"; return OK; }
R cuGetErrorName(R e, const char **s) { *s = e == OOM ? "CUDA_ERROR_OUT_OF_MEMORY" : e == 999 ? "CUDA_ERROR_UNKNOWN" : e == 719 ? "CUDA_ERROR_LAUNCH_FAILED" : e == 46 ? "CUDA_ERROR_DEVICE_UNAVAILABLE" : e == NO_CTX ? "CUDA_ERROR_INVALID_CONTEXT" : e ? "CUDA_ERROR_UNKNOWN" : "CUDA_SUCCESS"; return OK; }
R cuDeviceGetCount(int *n) { *n = 1; return OK; }
R cuDeviceGet(int *d, int i) { GATE; *d = i; return i == 0 ? OK : 101; }
R cuDeviceGetName(char *s, int n, int d) { (void)d; snprintf(s, n, "Fake GPU"); return OK; }
R cuDeviceGetUuid_v2(char *u, int d) { (void)d; memset(u, 7, 16); return OK; }
R cuDeviceTotalMem_v2(size_t *b, int d) { (void)d; *b = 1ull << 32; return OK; }
R cuDeviceComputeCapability(int *a, int *b, int d) { (void)d; *a = 8; *b = 7; return OK; }
R cuDeviceGetAttribute(int *v, int a, int d) { (void)d; *v = a == 75 ? 8 : a == 76 ? 7 : 1; return OK; }
R cuDeviceGetPCIBusId(char *s, int n, int d) { (void)d; snprintf(s, n, "0000:00:00.0"); return OK; }

R cuCtxCreate_v4(H *c, void *p, unsigned f, int d) { GATE; (void)p; (void)f; (void)d; *c = malloc(1); live_ctx++; stack[depth++] = *c; return OK; }
R cuCtxCreate_v2(H *c, unsigned f, int d) { return cuCtxCreate_v4(c, NULL, f, d); }
R cuCtxDestroy_v2(H c) { GATE; if (depth && stack[depth - 1] == c) depth--; if (c != (H)&primary) { free(c); live_ctx--; } return OK; }
R cuCtxDetach(H c) { return cuCtxDestroy_v2(c); }
R cuCtxAttach(H *c, unsigned f) { (void)f; NEED_CTX; *c = stack[depth - 1]; return OK; }
R cuCtxPushCurrent_v2(H c) { GATE; stack[depth++] = c; return OK; }
R cuCtxPopCurrent_v2(H *c) { GATE; NEED_CTX; depth--; if (c) *c = stack[depth]; return OK; }
R cuCtxGetCurrent(H *c) { *c = depth ? stack[depth - 1] : NULL; return OK; }
R cuCtxSetCurrent(H c) { if (depth) depth--; if (c) stack[depth++] = c; return OK; }
R cuCtxGetDevice(int *d) { NEED_CTX; *d = 0; return OK; }
R cuCtxGetApiVersion(H c, unsigned *v) { (void)c; *v = 4; return OK; }
R cuCtxSynchronize(void) { GATE; NEED_CTX; return OK; }
R cuDevicePrimaryCtxRetain(H *c, int d) { GATE; (void)d; retained++; *c = (H)&primary; return OK; }
R cuDevicePrimaryCtxRelease_v2(int d) { GATE; (void)d; retained--; return OK; }

static struct { char *at; size_t n; } blocks[512];

static void within(DP p, size_t n, const char *what) {
    char *at = (char *)(uintptr_t)p;
    for (int i = 0; i < 512; i++)
        if (blocks[i].at && at >= blocks[i].at && at + n <= blocks[i].at + blocks[i].n) return;
    fprintf(stderr, "fakecuda: %s of %zu bytes at %p is in no allocation\n", what, n, (void *)at);
    abort();
}

R cuMemAlloc_v2(DP *p, size_t n) {
    GATE; NEED_CTX;
    char *m = aligned_alloc(256, n / 256 * 256 + 256);
    int i = 0;
    while (i < 512 && blocks[i].at) i++;
    if (!m || i == 512) return OOM;
    memset(m, 0xCD, n);
    blocks[i].at = m; blocks[i].n = n;
    live_mem++;
    *p = (DP)(uintptr_t)m;
    return OK;
}
R cuMemFree_v2(DP p) {
    GATE; NEED_CTX;
    for (int i = 0; i < 512; i++)
        if (blocks[i].at == (char *)(uintptr_t)p) {
            free(blocks[i].at);
            blocks[i].at = NULL;
            live_mem--;
            return OK;
        }
    fprintf(stderr, "fakecuda: %p is freed, which is no allocation\n", (void *)(uintptr_t)p);
    abort();
}
R cuMemHostAlloc(void **p, size_t n, unsigned f) { GATE; (void)f; NEED_CTX; *p = aligned_alloc(4096, (n + 4095) / 4096 * 4096); live_host++; return *p ? OK : OOM; }
R cuMemAllocHost_v2(void **p, size_t n) { return cuMemHostAlloc(p, n, 0); }
R cuMemFreeHost(void *p) { GATE; free(p); live_host--; return OK; }
R cuMemHostRegister_v2(void *p, size_t n, unsigned f) { GATE; (void)f; NEED_CTX; if ((uintptr_t)p % 4096 || n % 4096) return INVALID; live_host++; return OK; }
R cuMemHostUnregister(void *p) { GATE; (void)p; NEED_CTX; live_host--; return OK; }
R cuMemGetInfo_v2(size_t *a, size_t *b) { NEED_CTX; *a = *b = 1ull << 32; return OK; }
/* What a stream that is captured would do; without a capture it is done at once. */
typedef struct { void *d; const void *s; size_t n; void (*call)(void *); void *data; } Op;
typedef struct { Op ops[64]; int n; } Graph;
typedef struct { Graph *capture; } Stream;

static void act(const Op *op) { if (op->call) op->call(op->data); else memmove(op->d, op->s, op->n); }
static R enqueue(Op op, H t) {
    Stream *stream = t;
    if (!depth) return NO_CTX;
    if (!stream || !stream->capture) { act(&op); return OK; }
    if (stream->capture->n == 64) return OOM;
    stream->capture->ops[stream->capture->n++] = op;
    return OK;
}
static R copy(void *d, const void *s, size_t n, H t) { return enqueue((Op){.d = d, .s = s, .n = n}, t); }
#define P(p) ((void *)(uintptr_t)(p))
R cuMemcpyHtoD_v2(DP d, const void *s, size_t n) { GATE; within(d, n, "a copy"); return copy(P(d), s, n, NULL); }
R cuMemcpyDtoH_v2(void *d, DP s, size_t n) { GATE; within(s, n, "a copy"); return copy(d, P(s), n, NULL); }
R cuMemcpyDtoD_v2(DP d, DP s, size_t n) { GATE; within(d, n, "a copy"); within(s, n, "a copy"); return copy(P(d), P(s), n, NULL); }
R cuMemcpyHtoDAsync_v2(DP d, const void *s, size_t n, H t) { GATE; within(d, n, "a copy"); return copy(P(d), s, n, t); }
R cuMemcpyDtoHAsync_v2(void *d, DP s, size_t n, H t) { GATE; within(s, n, "a copy"); return copy(d, P(s), n, t); }
R cuMemcpyDtoDAsync_v2(DP d, DP s, size_t n, H t) { GATE; within(d, n, "a copy"); within(s, n, "a copy"); return copy(P(d), P(s), n, t); }
R cuMemsetD8_v2(DP d, unsigned char v, size_t n) { GATE; NEED_CTX; within(d, n, "a fill"); memset(P(d), v, n); return OK; }
R cuMemsetD8Async(DP d, unsigned char v, size_t n, H t) { (void)t; return cuMemsetD8_v2(d, v, n); }
R cuLaunchHostFunc(H t, void (*call)(void *), void *data) { GATE; return enqueue((Op){.call = call, .data = data}, t); }

R cuStreamCreate(H *s, unsigned f) { GATE; (void)f; NEED_CTX; *s = calloc(1, sizeof(Stream)); live_stream++; return OK; }
R cuStreamDestroy_v2(H s) { GATE; free(s); live_stream--; return OK; }
R cuStreamBeginCapture_v2(H t, int mode) {
    GATE; NEED_CTX;
    if (mode != 1) return INVALID; /* another mode than thread-local breaks other threads' streams */
    ((Stream *)t)->capture = calloc(1, sizeof(Graph));
    live_graph++;
    return OK;
}
R cuStreamEndCapture(H t, H *g) {
    GATE; NEED_CTX;
    *g = ((Stream *)t)->capture;
    ((Stream *)t)->capture = NULL;
    return *g ? OK : INVALID;
}
R cuGraphInstantiateWithFlags(H *e, H g, unsigned long long f) {
    GATE; (void)f; NEED_CTX;
    *e = memcpy(malloc(sizeof(Graph)), g, sizeof(Graph));
    live_graph++;
    return OK;
}
R cuGraphLaunch(H e, H t) {
    GATE; (void)t; NEED_CTX;
    for (int i = 0; i < ((Graph *)e)->n; i++) act(&((Graph *)e)->ops[i]);
    return OK;
}
R cuGraphExecDestroy(H e) { GATE; free(e); live_graph--; return OK; }
R cuGraphDestroy(H g) { GATE; free(g); live_graph--; return OK; }
R cuStreamSynchronize(H s) { GATE; (void)s; NEED_CTX; return OK; }
R cuStreamQuery(H s) { (void)s; return OK; }
R cuStreamWaitEvent(H s, H e, unsigned f) { (void)s; (void)e; (void)f; return OK; }
R cuEventCreate(H *e, unsigned f) { GATE; (void)f; NEED_CTX; *e = malloc(1); live_event++; return OK; }
R cuEventDestroy_v2(H e) { free(e); live_event--; return OK; }
R cuEventRecord(H e, H s) { (void)e; (void)s; return OK; }
R cuEventSynchronize(H e) { (void)e; return OK; }
R cuEventQuery(H e) { (void)e; return OK; }
R cuEventElapsedTime_v2(float *ms, H a, H b) { (void)a; (void)b; *ms = 0.01f; return OK; }

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
