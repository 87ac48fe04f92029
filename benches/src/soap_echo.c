/* A stand-alone server of the operation Echo, made with gSOAP: server PORT. A thread for each connection. */
#include "echoH.h"
#include "BenchSoap.nsmap"
#include <pthread.h>

int __ns1__Echo(struct soap *soap, struct _ns1__Echo *given, struct _ns1__EchoResponse *answer) {
    (void)soap;
    answer->text = given->text;
    return SOAP_OK;
}

/* The same over SOAP 1.2. */
int __ns1__Echo_(struct soap *soap, struct _ns1__Echo *given, struct _ns1__EchoResponse *answer) {
    return __ns1__Echo(soap, given, answer);
}

static void *serve(void *accepted) {
    struct soap *soap = accepted;
    soap_serve(soap);
    soap_destroy(soap);
    soap_end(soap);
    soap_free(soap);
    return NULL;
}

int main(int count, char **arguments) {
    struct soap *soap = soap_new1(SOAP_IO_KEEPALIVE | SOAP_C_UTFSTRING);
    if (count != 2)
        return 2;
    soap_set_namespaces(soap, namespaces);
    soap->max_keep_alive = 0; /* No limit. */
    soap->bind_flags = SO_REUSEADDR;
    if (!soap_valid_socket(soap_bind(soap, "127.0.0.1", atoi(arguments[1]), 128))) {
        soap_print_fault(soap, stderr);
        return 1;
    }
    for (;;) {
        pthread_t thread;
        struct soap *accepted;
        if (!soap_valid_socket(soap_accept(soap)))
            continue;
        accepted = soap_copy(soap);
        if (pthread_create(&thread, NULL, serve, accepted)) {
            soap_closesock(accepted);
            soap_free(accepted);
        } else {
            pthread_detach(thread);
        }
    }
}
