/* Servers of the process that this is preloaded into listen on the loopback interface only.

   Beam's job servers bind their services to all interfaces, without authentication, and have no
   setting for it. A server's socket that would be bound to all interfaces is bound to loopback;
   every other address stays as it was asked for. What tells a server's socket from that of a client
   is SO_REUSEADDR, which Java sets on the former alone (JDK: Net.serverSocket). */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

typedef int (*bind_function)(int, const struct sockaddr *, socklen_t);

static int is_server(int descriptor)
{
    int type = 0, reused = 0;
    socklen_t size = sizeof type;
    if (getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &size) || type != SOCK_STREAM)
        return 0;
    size = sizeof reused;
    return !getsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &reused, &size) && reused;
}

/* The address of loopback for one of all interfaces. A socket for both versions of IP gets that of
   version 4, which "localhost" means to every client. */
static void to_loopback(int descriptor, struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET) {
        struct sockaddr_in *four = (struct sockaddr_in *)address;
        if (four->sin_addr.s_addr == htonl(INADDR_ANY))
            four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    } else if (address->ss_family == AF_INET6) {
        struct sockaddr_in6 *six = (struct sockaddr_in6 *)address;
        if (IN6_IS_ADDR_UNSPECIFIED(&six->sin6_addr)) {
            static const unsigned char mapped[16] = {[10] = 0xff, 0xff, 127, 0, 0, 1};
            int only = 0;
            socklen_t size = sizeof only;
            getsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, &only, &size);
            if (only)
                six->sin6_addr = in6addr_loopback;
            else
                memcpy(&six->sin6_addr, mapped, sizeof mapped);
        }
    }
}

int bind(int descriptor, const struct sockaddr *address, socklen_t length)
{
    static bind_function real;
    if (!real && !(real = (bind_function)dlsym(RTLD_NEXT, "bind"))) {
        errno = ENOSYS;
        return -1;
    }
    struct sockaddr_storage own;
    if (!address || length < sizeof(sa_family_t) || length > sizeof own || !is_server(descriptor))
        return real(descriptor, address, length);
    memset(&own, 0, sizeof own);
    memcpy(&own, address, length);
    to_loopback(descriptor, &own);
    return real(descriptor, (const struct sockaddr *)&own, length);
}

/* What the process starts is not preloaded into: workers and their models bind as they like. The
   library is the first of the list. */
__attribute__((constructor)) static void leave_the_environment(void)
{
    const char *list = getenv("LD_PRELOAD");
    const char *others = list ? strpbrk(list, " :") : NULL;
    if (others)
        setenv("LD_PRELOAD", others + 1, 1);
    else
        unsetenv("LD_PRELOAD");
}
