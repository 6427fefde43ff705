/* The server of truth_server.py once more, for levels that Python's would not keep up with: the same bytes, the same
 * pacing (a timer wheel of 1 ms, FIFO within a slot), the same /truth. One thread, epoll, a send a chunk.
 *
 *     cc -O2 -o truth_server truth_server.c && ./truth_server PORT TTFT_S ITL_S TOKENS CORE
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NAME "truth"
#define ID "chatcmpl-0123456789abcdef0123456789abcdef"
#define SLOTS 131072 /* of the wheel, in ms: no TTFT or ITL is longer than two minutes */
#define TIMER NULL

typedef struct { double *at; size_t count, room; } Times;
typedef struct { char *text; size_t size, room; } Bytes;
typedef struct Connection {
    int handle, left, tokens, plain, closed, in_wheel, watches_out;
    size_t prompt, sent;
    double arrived, last, due;
    Bytes in, out; /* out: what the socket did not take */
    struct Connection *next;
} Connection;

static double ttft, itl, gaps_sum;
static int tokens_asked, poller, timer;
static long gaps, chunks, connections;
static Times firsts, began, ended;
static Connection *heads[SLOTS], *tails[SLOTS];
static int64_t tick;
static Bytes text[2], last[2], head_and_role[2];
static Connection listener;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void note(Times *times, double moment) {
    if (times->count == times->room)
        times->at = realloc(times->at, (times->room = times->room * 2 + 1024) * sizeof(double));
    times->at[times->count++] = moment;
}

static void add(Bytes *bytes, const char *data, size_t size) {
    if (bytes->size + size > bytes->room)
        bytes->text = realloc(bytes->text, bytes->room = (bytes->size + size) * 2 + 256);
    memcpy(bytes->text + bytes->size, data, size);
    bytes->size += size;
}

static void add_frame(Bytes *bytes, const char *payload) {
    char size[32];
    size_t body = strlen(payload) + 8; /* "data: " before it, two line feeds behind it */
    add(bytes, size, snprintf(size, sizeof size, "%zx\r\ndata: ", body));
    add(bytes, payload, body - 8);
    add(bytes, "\n\n\r\n", 4);
}

static void add_chunk(Bytes *bytes, int plain, const char *said, const char *finish) {
    char payload[1024];
    if (plain)
        snprintf(payload, sizeof payload,
                 "{\"id\":\"" ID "\",\"object\":\"text_completion\",\"created\":1700000000,\"model\":\"" NAME
                 "\",\"choices\":[{\"index\":0,\"text\":\"%s\",\"logprobs\":null,\"finish_reason\":%s}]}",
                 said, finish);
    else
        snprintf(payload, sizeof payload,
                 "{\"id\":\"" ID "\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"" NAME
                 "\",\"choices\":[{\"index\":0,\"delta\":{%s},\"logprobs\":null,\"finish_reason\":%s}]}",
                 said, finish);
    add_frame(bytes, payload);
}

static void make_bytes(void) {
    const char *head = "HTTP/1.1 200 OK\r\nserver: truth\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                       "transfer-encoding: chunked\r\n\r\n";
    for (int plain = 0; plain < 2; plain++) {
        const char *said = plain ? " word" : "\"content\":\" word\"";
        add_chunk(&text[plain], plain, said, "null");
        add_chunk(&last[plain], plain, said, "\"length\"");
        add(&head_and_role[plain], head, strlen(head));
        if (!plain) add_chunk(&head_and_role[plain], 0, "\"role\":\"assistant\",\"content\":\"\"", "null");
    }
}

static void add_end(Bytes *bytes, Connection *to) {
    char payload[512];
    add(bytes, last[to->plain].text, last[to->plain].size);
    snprintf(payload, sizeof payload,
             "{\"id\":\"" ID "\",\"object\":\"%s\",\"created\":1700000000,\"model\":\"" NAME "\",\"choices\":[],"
             "\"usage\":{\"prompt_tokens\":%zu,\"total_tokens\":%zu,\"completion_tokens\":%d}}",
             to->plain ? "text_completion" : "chat.completion.chunk", to->prompt, to->prompt + to->tokens, to->tokens);
    add_frame(bytes, payload);
    add_frame(bytes, "[DONE]");
    add(bytes, "0\r\n\r\n", 5);
}

static void watch(Connection *of, int operation, int out) {
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = of};
    of->watches_out = out;
    epoll_ctl(poller, operation, of->handle, &event);
}

static void end_stream(Connection *of) {
    of->left = 0;
    note(&ended, now());
}

static void hang_up(Connection *of) {
    if (of->left) end_stream(of);
    close(of->handle);
    of->closed = 1;
    free(of->in.text);
    free(of->out.text);
    memset(&of->in, 0, sizeof of->in);
    memset(&of->out, 0, sizeof of->out);
    if (!of->in_wheel) free(of);
}

/* Send now; what the socket does not take follows when it does. A connection that broke is noticed when it is read. */
static void put(Connection *to, const char *data, size_t size) {
    if (to->out.size == 0) {
        ssize_t taken = send(to->handle, data, size, MSG_NOSIGNAL);
        if (taken < 0 && errno != EAGAIN) return;
        if (taken > 0) data += taken, size -= taken;
        if (size == 0) return;
        to->sent = 0;
    }
    add(&to->out, data, size);
    if (!to->watches_out) watch(to, EPOLL_CTL_MOD, 1);
}

static void put_rest(Connection *to) {
    ssize_t taken = send(to->handle, to->out.text + to->sent, to->out.size - to->sent, MSG_NOSIGNAL);
    if (taken > 0) to->sent += taken;
    if (to->sent < to->out.size && (taken >= 0 || errno == EAGAIN)) return;
    to->out.size = to->sent = 0;
    watch(to, EPOLL_CTL_MOD, 0);
}

static void later(Connection *stream) {
    int64_t at = (int64_t)(stream->due * 1000) + 1;
    if (at <= tick) at = tick + 1;
    stream->next = NULL;
    stream->in_wheel = 1;
    if (heads[at % SLOTS]) tails[at % SLOTS]->next = stream;
    else heads[at % SLOTS] = stream;
    tails[at % SLOTS] = stream;
}

static void step(Connection *to) {
    static Bytes made;
    double moment = now();
    int first = to->left == to->tokens;
    if (first) note(&firsts, moment - to->arrived);
    else gaps_sum += moment - to->last, gaps++;
    to->last = moment;
    to->left--;
    chunks++;
    if (!first && to->left) {
        put(to, text[to->plain].text, text[to->plain].size);
    } else {
        made.size = 0;
        if (first) add(&made, head_and_role[to->plain].text, head_and_role[to->plain].size);
        if (to->left) add(&made, text[to->plain].text, text[to->plain].size);
        else add_end(&made, to);
        put(to, made.text, made.size);
    }
    if (!to->left) {
        end_stream(to);
        return;
    }
    to->due += itl;
    later(to);
}

/* TTFT 0 and ITL 0: the whole answer at once. */
static void flood(Connection *to) {
    static Bytes made;
    note(&firsts, now() - to->arrived);
    made.size = 0;
    add(&made, head_and_role[to->plain].text, head_and_role[to->plain].size);
    for (int number = 1; number < to->tokens; number++) add(&made, text[to->plain].text, text[to->plain].size);
    add_end(&made, to);
    put(to, made.text, made.size);
    chunks += to->tokens;
    end_stream(to);
}

static void turn(void) {
    int64_t upto = (int64_t)(now() * 1000);
    while (tick < upto) {
        Connection *one = heads[++tick % SLOTS];
        heads[tick % SLOTS] = NULL;
        while (one) {
            Connection *next = one->next;
            one->in_wheel = 0;
            if (one->closed) free(one);
            else if (one->left) step(one);
            one = next;
        }
    }
}

static void answer_json(Connection *to, const char *status, const char *json, size_t size) {
    char head[256];
    put(to, head, snprintf(head, sizeof head,
                           "HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n", status, size));
    put(to, json, size);
}

static void add_times(Bytes *bytes, const char *name, Times *times) {
    char number[64];
    add(bytes, number, snprintf(number, sizeof number, ",\"%s\":[", name));
    for (size_t at = 0; at < times->count; at++)
        add(bytes, number, snprintf(number, sizeof number, at ? ",%.9f" : "%.9f", times->at[at]));
    add(bytes, "]", 1);
}

static void report(Connection *to) {
    Bytes json = {0};
    char line[256], mean[32] = "null";
    if (gaps) snprintf(mean, sizeof mean, "%.9f", gaps_sum / gaps);
    add(&json, line, snprintf(line, sizeof line,
                              "{\"requests\":%zu,\"chunks\":%ld,\"connections\":%ld,\"itl_mean\":%s,\"cpu_s\":%.3f",
                              ended.count, chunks, connections, mean, clock() / (double)CLOCKS_PER_SEC));
    add_times(&json, "ttft", &firsts);
    add_times(&json, "began", &began);
    add_times(&json, "ended", &ended);
    add(&json, "}", 1);
    answer_json(to, "200 OK", json.text, json.size);
    free(json.text);
}

static void forget(void) {
    firsts.count = began.count = ended.count = 0;
    gaps_sum = gaps = chunks = connections = 0;
}

static void complete(Connection *to, const char *path, const char *body, size_t size) {
    const char *asked = strstr(body, "\"max_tokens\":");
    if (!asked) asked = strstr(body, "\"max_completion_tokens\":");
    int wanted = asked ? atoi(strchr(asked, ':') + 1) : 0;
    to->tokens = to->left = wanted > 0 ? wanted : tokens_asked;
    to->plain = strstr(path, "/chat/completions") == NULL;
    to->prompt = size / 5;
    to->arrived = to->last = now();
    note(&began, to->arrived);
    to->due = to->arrived + ttft;
    if (ttft <= 0 && itl <= 0) flood(to);
    else later(to);
}

/* One whole request. */
static void serve(Connection *to, char *head, const char *body, size_t size) {
    char *path = strchr(head, ' ');
    char *end = path ? strchr(path + 1, ' ') : NULL;
    if (!end) return;
    *end = 0;
    if (end - path > 12 && strcmp(end - 12, "/completions") == 0) complete(to, path + 1, body, size);
    else if (strcmp(path + 1, "/truth") == 0) report(to);
    else if (strcmp(path + 1, "/reset") == 0) forget(), answer_json(to, "200 OK", "{}", 2);
    else if (strstr(path, "/models")) {
        const char *json = "{\"object\":\"list\",\"data\":[{\"id\":\"" NAME "\",\"object\":\"model\"}]}";
        answer_json(to, "200 OK", json, strlen(json));
    } else answer_json(to, strcmp(path + 1, "/health") ? "404 Not Found" : "200 OK", "{}", 2);
}

/* Serve the requests that are whole; a body has a Content-Length here. */
static void serve_all(Connection *to) {
    for (;;) {
        add(&to->in, "", 1); /* a zero behind it, so that it is a string */
        to->in.size--;
        char *end = memmem(to->in.text, to->in.size, "\r\n\r\n", 4);
        if (!end) return;
        *end = 0;
        char *length = strcasestr(to->in.text, "\r\ncontent-length:");
        size_t body = length ? strtoul(length + 17, NULL, 10) : 0, whole = end + 4 - to->in.text + body;
        if (to->in.size < whole) {
            *end = '\r';
            return;
        }
        char kept = to->in.text[whole];
        to->in.text[whole] = 0;
        serve(to, to->in.text, end + 4, body);
        to->in.text[whole] = kept;
        memmove(to->in.text, to->in.text + whole, to->in.size -= whole);
        if (to->in.size == 0) return;
    }
}

static void take(Connection *from) {
    static char data[1 << 16];
    ssize_t size = recv(from->handle, data, sizeof data, 0);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) {
        hang_up(from);
        return;
    }
    add(&from->in, data, size);
    serve_all(from);
}

static void accept_all(void) {
    for (int handle; (handle = accept4(listener.handle, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        Connection *made = calloc(1, sizeof *made);
        int yes = 1;
        setsockopt(handle, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        made->handle = handle;
        watch(made, EPOLL_CTL_ADD, 0);
        connections++;
    }
}

static void listen_on(int port) {
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int yes = 1;
    listener.handle = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener.handle, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener.handle, (void *)&where, sizeof where) || listen(listener.handle, 4096)) {
        perror("truth server");
        exit(1);
    }
    watch(&listener, EPOLL_CTL_ADD, 0);
}

static void start_timer(void) {
    struct itimerspec each = {.it_interval.tv_nsec = 1000000, .it_value.tv_nsec = 1000000};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = TIMER};
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    timerfd_settime(timer, 0, &each, NULL);
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);
}

int main(int count, char **words) {
    if (count != 6) return fprintf(stderr, "truth_server PORT TTFT_S ITL_S TOKENS CORE\n"), 2;
    ttft = atof(words[2]), itl = atof(words[3]), tokens_asked = atoi(words[4]);
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(atoi(words[5]), &cores);
    sched_setaffinity(0, sizeof cores, &cores);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    make_bytes();
    tick = (int64_t)(now() * 1000);
    poller = epoll_create1(0);
    listen_on(atoi(words[1]));
    start_timer();
    printf("truth server on %s\n", words[1]);
    fflush(stdout);
    for (;;) {
        struct epoll_event events[256];
        int ready = epoll_wait(poller, events, 256, -1);
        for (int number = 0; number < ready; number++) {
            Connection *one = events[number].data.ptr;
            if (one == TIMER) {
                uint64_t expired;
                if (read(timer, &expired, sizeof expired) < 0) continue; /* it is armed again by being read */
            } else if (one == &listener) accept_all();
            else {
                if (events[number].events & EPOLLOUT) put_rest(one);
                if (events[number].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) take(one);
            }
        }
        turn();
    }
}
