/* A stand-alone server of billing.h, made with gSOAP: one thread, one port that the system chooses and that is
   told on standard output. */
#include "soapH.h"
#include "Billing.nsmap"
#include "wsseapi.h"

static int noted = 0;

int main(void)
{
  struct soap *soap = soap_new1(SOAP_IO_KEEPALIVE | SOAP_XML_STRICT | SOAP_C_UTFSTRING);
  struct sockaddr_in address;
  socklen_t length = sizeof(address);
  soap_register_plugin(soap, soap_wsse);
  soap->bind_flags = SO_REUSEADDR;
  soap->recv_timeout = 5;
  if (!soap_valid_socket(soap_bind(soap, "127.0.0.1", 0, 16)))
    return 1;
  getsockname(soap->master, (struct sockaddr *)&address, &length);
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  for (;;) {
    if (!soap_valid_socket(soap_accept(soap)))
      continue;
    soap_serve(soap);
    soap_destroy(soap);
    soap_end(soap);
  }
}

int b__GetInvoice(struct soap *soap, LONG64 number, struct b__GetInvoiceResponse *answer)
{
  struct b__Invoice *invoice = soap_malloc(soap, sizeof *invoice);
  soap_default_b__Invoice(soap, invoice);
  invoice->number = number;
  invoice->kind = TRADE;
  invoice->issued.tv_sec = 1700000000;
  invoice->due = soap_strdup(soap, "2023-12-24");
  invoice->paid = true_;
  invoice->total = soap_strdup(soap, "19.90");
  invoice->weight = 0.5;
  invoice->__sizeline = 2;
  invoice->line = soap_malloc(soap, 2 * sizeof *invoice->line);
  soap_default_b__Line(soap, &invoice->line[0]);
  soap_default_b__Line(soap, &invoice->line[1]);
  invoice->line[0].unit = soap_strdup(soap, "kg");
  invoice->line[0].article = soap_strdup(soap, "Apples <green> & more");
  invoice->line[0].count = 3;
  invoice->line[0].price = soap_strdup(soap, "1.10");
  invoice->line[1].article = soap_strdup(soap, "Bag");
  invoice->line[1].count = 1;
  invoice->scan = soap_malloc(soap, sizeof *invoice->scan);
  soap_default_xsd__base64Binary(soap, invoice->scan);
  invoice->scan->__ptr = (unsigned char *)soap_strdup(soap, "\x01\x02\xff");
  invoice->scan->__size = 3;
  answer->invoice = invoice;
  return SOAP_OK;
}

int b__Echo(struct soap *soap, struct b__Invoice *invoice, struct b__EchoResponse *answer)
{
  (void)soap;
  answer->invoice = invoice;
  return SOAP_OK;
}

int b__Fail(struct soap *soap, int code, struct b__FailResponse *answer)
{
  struct b__Problem *problem;
  (void)answer;
  soap_sender_fault(soap, "over the limit", NULL);
  problem = soap_malloc(soap, sizeof *problem);
  soap_default_b__Problem(soap, problem);
  problem->code = code;
  problem->limit = soap_strdup(soap, "99.50");
  soap_faultdetail(soap);
  if (soap->version == 2)
    soap->fault->SOAP_ENV__Detail->b__Problem = problem;
  else
    soap->fault->detail->b__Problem = problem;
  return SOAP_FAULT;
}

int b__Who(struct soap *soap, struct b__WhoResponse *answer)
{
  const char *user = soap_wsse_get_Username(soap);
  if (!user) {
    soap_wsse_delete_Security(soap);
    return SOAP_OK;
  }
  if (strcmp(user, "ada") || soap_wsse_verify_Password(soap, "l0velace")) {
    soap_wsse_delete_Security(soap);
    return soap_wsse_sender_fault_subcode(soap, "wsse:FailedAuthentication", "not you", NULL);
  }
  if (soap_wsse_verify_Timestamp(soap)) {
    soap_wsse_delete_Security(soap);
    return soap->error;
  }
  answer->user = soap_strdup(soap, user);
  soap_wsse_delete_Security(soap);
  return SOAP_OK;
}

int b__Note(struct soap *soap, char *text)
{
  noted += (int)strlen(text);
  return soap_send_empty_response(soap, 202);
}

int b__Noted(struct soap *soap, struct b__NotedResponse *answer)
{
  (void)soap;
  answer->count = noted;
  return SOAP_OK;
}
