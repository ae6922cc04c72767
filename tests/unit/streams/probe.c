/* A C program that uses a stream the way the instrument's servers do, knowing only the layout table.
 *
 *   probe layout                  offsets and sizes of the header and of a keyword
 *   probe read FILE               header, sum of the int32 data, first keyword (maps the file)
 *   probe frame FILE SEM VALUE    one frame of a camera stream: flag, fill, flag, post, count (maps the file)
 *   probe wait SEM                one sem_wait
 *   probe create FILE SEM X Y     an int32 stream of its own: cut or made, filled, SEM reset to 0
 */
#include <fcntl.h>
#include <semaphore.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    char version[32];
    char name[80];
    uint8_t naxis;
    uint32_t size[3];
    uint64_t nelement;
    uint8_t datatype;
    uint64_t imagetype;
    struct timespec creationtime, lastaccesstime, atime, writetime;
    uint8_t shared;
    int8_t location;
    uint8_t status;
    uint64_t flag;
    uint8_t logflag;
    uint16_t sem;
    uint64_t cnt0, cnt1, cnt2;
    uint8_t write;
    uint16_t NBkw;
    char cudaMemHandle[64];
} Metadata;

typedef struct {
    char name[16];
    char type;
    union {
        int64_t l;
        double d;
        char s[16];
    } value;
    char comment[80];
} Keyword;

#define WHERE(field) printf(#field " %zu\n", offsetof(Metadata, field))

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static Metadata *map(const char *path)
{
    struct stat status;
    int fd = open(path, O_RDWR);
    if (fd < 0 || fstat(fd, &status) < 0)
        die(path);
    void *memory = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        die("mmap");
    return memory;
}

static sem_t *semaphore(const char *name, int flags)
{
    sem_t *sem = sem_open(name, flags, 0644, 0);
    if (sem == SEM_FAILED)
        die(name);
    return sem;
}

static void layout(void)
{
    WHERE(version); WHERE(name); WHERE(naxis); WHERE(size); WHERE(nelement); WHERE(datatype);
    WHERE(imagetype); WHERE(creationtime); WHERE(lastaccesstime); WHERE(atime); WHERE(writetime);
    WHERE(shared); WHERE(location); WHERE(status); WHERE(flag); WHERE(logflag); WHERE(sem);
    WHERE(cnt0); WHERE(cnt1); WHERE(cnt2); WHERE(write); WHERE(NBkw); WHERE(cudaMemHandle);
    printf("sizeof %zu\n", sizeof(Metadata));
    printf("keyword.type %zu\nkeyword.value %zu\nkeyword.comment %zu\nkeyword.sizeof %zu\n",
           offsetof(Keyword, type), offsetof(Keyword, value), offsetof(Keyword, comment), sizeof(Keyword));
    printf("sem_t %zu\n", sizeof(sem_t));
}

static void show(const char *path)
{
    const Metadata *md = map(path);
    const int32_t *data = (const int32_t *)(md + 1);
    const Keyword *kw = (const Keyword *)(data + md->nelement);
    const pid_t *pid = (const pid_t *)(kw + md->NBkw);
    int64_t sum = 0;
    if (strcmp(md->version, "0.0.01") != 0)
        die(md->version);
    for (uint64_t i = 0; i < md->nelement; i++)
        sum += (int64_t)(i + 1) * data[i];
    printf("name %s\nnaxis %d\nsize %u %u %u\ndatatype %d\nimagetype %llu\nsem %d\nNBkw %d\n", md->name,
           md->naxis, md->size[0], md->size[1], md->size[2], md->datatype, (unsigned long long)md->imagetype,
           md->sem, md->NBkw);
    printf("cnt0 %llu\nwrite %d\nlocation %d\nsum %lld\n", (unsigned long long)md->cnt0, md->write,
           md->location, (long long)sum);
    printf("keyword %s %c %g %s\n", kw->name, kw->type, kw->value.d, kw->comment);
    printf("read_pid %d\nwrite_pid %d\n", pid[0], pid[md->sem]);
}

static void frame(const char *path, const char *name, int value)
{
    Metadata *md = map(path);
    int32_t *data = (int32_t *)(md + 1);
    md->write = 1;
    for (uint64_t i = 0; i < md->nelement; i++)
        data[i] = value;
    md->write = 0;
    sem_post(semaphore(name, 0));
    md->cnt0++;
    md->cnt1++;
}

static void create(const char *path, const char *name, uint32_t x, uint32_t y)
{
    size_t bytes = sizeof(Metadata) + 4 * (size_t)x * y + 10 * sizeof(Keyword) + 20 * sizeof(pid_t);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || ftruncate(fd, bytes) < 0)
        die(path);
    Metadata *md = map(path);
    Keyword *kw = (Keyword *)((char *)(md + 1) + 4 * (size_t)x * y);
    strcpy(md->version, "0.0.01");
    strcpy(md->name, "made_in_c");
    md->naxis = 2;
    md->size[0] = x;
    md->size[1] = y;
    md->nelement = (uint64_t)x * y;
    md->datatype = 6;
    md->imagetype = 2;
    md->shared = 1;
    md->location = -1;
    md->sem = 10;
    md->NBkw = 10;
    clock_gettime(CLOCK_REALTIME, &md->creationtime);
    for (int k = 0; k < 10; k++)
        kw[k].type = 'N';
    kw[4].type = 'L';
    strcpy(kw[4].name, "ANSWER");
    kw[4].value.l = 42;
    strcpy(kw[4].comment, "from C");
    memset(kw + 10, 0xff, 20 * sizeof(pid_t));
    sem_init(semaphore(name, O_CREAT), 1, 0);
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "layout"))
        layout();
    else if (argc == 3 && !strcmp(argv[1], "read"))
        show(argv[2]);
    else if (argc == 5 && !strcmp(argv[1], "frame"))
        frame(argv[2], argv[3], atoi(argv[4]));
    else if (argc == 3 && !strcmp(argv[1], "wait"))
        sem_wait(semaphore(argv[2], 0));
    else if (argc == 6 && !strcmp(argv[1], "create"))
        create(argv[2], argv[3], atoi(argv[4]), atoi(argv[5]));
    else
        return 2;
    return 0;
}
