/* A CUDA driver in host memory, as a libcuda.so.1, for cuda-python itself to run on: what `fer_edge.runtime` calls, and
   nothing else. Work runs at once, or goes into the graph that its stream is capturing. The kernel is y = 2 x + 1. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Status;
typedef unsigned long long Pointer;

enum { OK = 0, INVALID_VALUE = 1, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500 };
enum { COPY, KERNEL };

typedef struct { int kind; Pointer to, from; size_t size; } Work;
typedef struct { Work work[64]; int count, capturing; } Queue; /* a stream, a graph or an executable graph */

static struct { int memory, retained, streams, graphs, modules, depth, launches; } left;
static char context, module, function;

static void run(const Work *work) {
    if (work->kind == COPY) {
        memcpy((void *)work->to, (const void *)work->from, work->size);
        return;
    }
    const float *x = (const float *)work->from;
    float *y = (float *)work->to;
    for (size_t i = 0; i < work->size; i++) y[i] = 2 * x[i] + 1;
}

static Status put(void *stream, Work work) {
    Queue *queue = stream;
    if (!left.depth) return INVALID_CONTEXT;
    if ((uintptr_t)stream < 4096) return INVALID_HANDLE; /* the default streams are small numbers */
    if (queue->capturing) queue->work[queue->count++] = work;
    else run(&work);
    return OK;
}

static Status copied(void **to, const void *from, int *counter) {
    Queue *queue = malloc(sizeof *queue);
    *queue = *(const Queue *)from;
    queue->capturing = 0;
    *to = queue;
    ++*counter;
    return OK;
}

static Status freed(void *what, int *counter) {
    free(what);
    --*counter;
    return OK;
}

static Status allocated(void **to, size_t size) {
    if (!left.depth) return INVALID_CONTEXT;
    *to = malloc(size);
    left.memory++;
    return OK;
}

Status cuInit(unsigned flags) { return flags ? INVALID_VALUE : OK; }
Status cuDriverGetVersion(int *version) { *version = 13000; return OK; }
Status cuDeviceGetCount(int *count) { *count = 1; return OK; }
Status cuDeviceGet(int *device, int ordinal) { *device = ordinal; return OK; }
Status cuDeviceGetName(char *name, int length, int device) { (void)device; strncpy(name, "C driver", length); return OK; }
Status cuDeviceTotalMem_v2(size_t *size, int device) { (void)device; *size = 1u << 30; return OK; }
Status cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    switch (attribute) {
    case 18: *value = 0; return OK; /* INTEGRATED */
    case 19: *value = 1; return OK; /* CAN_MAP_HOST_MEMORY */
    case 75: *value = 8; return OK; /* COMPUTE_CAPABILITY_MAJOR */
    case 76: *value = 6; return OK; /* COMPUTE_CAPABILITY_MINOR */
    default: return INVALID_VALUE;
    }
}

Status cuDevicePrimaryCtxRetain(void **to, int device) { (void)device; *to = &context; left.retained++; return OK; }
Status cuDevicePrimaryCtxRelease_v2(int device) { (void)device; left.retained--; return OK; }
Status cuCtxPushCurrent_v2(void *what) { if (what != &context) return INVALID_CONTEXT; left.depth++; return OK; }
Status cuCtxPopCurrent_v2(void **to) { *to = &context; left.depth--; return OK; }

Status cuMemAlloc_v2(Pointer *to, size_t size) { return allocated((void **)to, size); }
Status cuMemFree_v2(Pointer what) { return freed((void *)what, &left.memory); }
Status cuMemHostAlloc(void **to, size_t size, unsigned flags) { return flags > 3 ? INVALID_VALUE : allocated(to, size); }
Status cuMemHostGetDevicePointer_v2(Pointer *to, void *host, unsigned flags) { *to = (Pointer)host; return (Status)flags; }
Status cuMemFreeHost(void *what) { return freed(what, &left.memory); }
Status cuMemGetInfo_v2(size_t *available, size_t *total) { *available = 1u << 29; *total = 1u << 30; return OK; }
Status cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t size, void *stream) {
    return put(stream, (Work){COPY, to, (Pointer)from, size});
}
Status cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t size, void *stream) {
    return put(stream, (Work){COPY, (Pointer)to, from, size});
}

Status cuStreamCreate(void **to, unsigned flags) {
    *to = calloc(1, sizeof(Queue));
    left.streams++;
    return flags == 1 ? OK : INVALID_VALUE; /* CU_STREAM_NON_BLOCKING */
}
Status cuStreamDestroy_v2(void *stream) { return freed(stream, &left.streams); }
Status cuStreamSynchronize(void *stream) { return ((Queue *)stream)->capturing ? INVALID_VALUE : OK; }
Status cuStreamBeginCapture_v2(void *stream, int mode) {
    Queue *queue = stream;
    queue->capturing = 1;
    queue->count = 0;
    return mode == 1 ? OK : INVALID_VALUE; /* CU_STREAM_CAPTURE_MODE_THREAD_LOCAL */
}
Status cuStreamEndCapture(void *stream, void **to) {
    ((Queue *)stream)->capturing = 0;
    return copied(to, stream, &left.graphs);
}
Status cuGraphInstantiateWithFlags(void **to, void *graph, unsigned long long flags) {
    return flags ? INVALID_VALUE : copied(to, graph, &left.graphs);
}
Status cuGraphDestroy(void *graph) { return freed(graph, &left.graphs); }
Status cuGraphExecDestroy(void *graph) { return freed(graph, &left.graphs); }
Status cuGraphLaunch(void *graph, void *stream) {
    Queue *queue = graph;
    left.launches++;
    for (int i = 0; i < queue->count; i++)
        if (put(stream, queue->work[i])) return INVALID_HANDLE;
    return OK;
}

Status cuModuleLoadData(void **to, const void *image) {
    *to = &module;
    left.modules++;
    return memcmp(image, "\177ELF", 4) ? INVALID_VALUE : OK;
}
Status cuModuleUnload(void *what) { left.modules--; return what == &module ? OK : INVALID_HANDLE; }
Status cuModuleGetFunction(void **to, void *what, const char *name) {
    *to = &function;
    return what == &module && !strcmp(name, "affine") ? OK : NOT_FOUND;
}
Status cuLaunchKernel(void *what, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, void *stream, void **parameters, void **extra) {
    unsigned count = *(unsigned *)parameters[2];
    if (what != &function || extra || shared || gy * gz * by * bz != 1 || gx * bx < count) return INVALID_VALUE;
    return put(stream, (Work){KERNEL, *(Pointer *)parameters[1], *(Pointer *)parameters[0], count});
}

/* cuda-python asks for each function by its plain name and means the newest version of it. */
Status cuGetProcAddress_v2(const char *name, void **to, int version, unsigned long long flags, int *found) {
    static const char *const endings[] = {"_v2", "", "WithFlags"};
    (void)version, (void)flags;
    void *here = dlopen("libcuda.so.1", RTLD_NOLOAD | RTLD_NOW);
    *to = NULL;
    for (int i = 0; i < 3 && !*to; i++) {
        char full[128];
        snprintf(full, sizeof full, "%s%s", name, endings[i]);
        *to = dlsym(here, full);
    }
    if (found) *found = *to ? 0 : 1;
    return OK;
}
Status cuGetProcAddress(const char *name, void **to, int version, unsigned long long flags) {
    return cuGetProcAddress_v2(name, to, version, flags, NULL);
}

/* For the test: what has not been given back, and how often a graph was launched. */
void left_behind(int *counts) { memcpy(counts, &left, sizeof left); }
